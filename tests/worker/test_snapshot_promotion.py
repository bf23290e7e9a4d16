"""A promoted copy is the worker: everything that a session has goes on in it."""

from __future__ import annotations

import json
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from unstuck.protocol import Finished
from unstuck.typing import MsgType, RunMode
from worker.copies_double import SnapshotDouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.broker_double import Outputs

HANG = "import itertools; max(itertools.repeat(1))"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[SnapshotDouble]:
    """Give a worker whose copies come to the test."""
    worker = SnapshotDouble.start(tmp_path)
    yield worker
    worker.close()


def says_up(outputs: Outputs) -> bool:
    return "up" in outputs.text()


def values(worker: SnapshotDouble, expression: str) -> object:
    """Evaluate in the worker; what comes back is JSON."""
    found = worker.run_after(f"import json as _json; print(_json.dumps({expression}))").text()
    return json.loads(found)


def test_an_idle_worker_has_a_copy_that_has_its_variables(worker: SnapshotDouble) -> None:
    worker.run("x = [1, 2]; here = id(x)")
    copy = worker.wait_for_copy()
    assert (copy.ready.kind, copy.ready.lost, copy.ready.cell) == ("promotable", [], 1)
    worker.recover()
    assert worker.run_after("(x, id(x) == here)").result == "([1, 2], True)"


def test_a_cell_that_holds_the_gil_costs_nothing_but_itself(worker: SnapshotDouble) -> None:
    worker.run("total = 41")
    worker.wait_for_copy()
    worker.submit(f"total = 0\n{HANG}")
    worker.recover()
    assert worker.run_after("total + 1").result == "42"


def test_a_copy_of_a_copy_works_as_well(worker: SnapshotDouble) -> None:
    def has_copy_of(cell: int) -> bool:
        # A promoted copy has one from before its first cell, too.
        return worker.last() > 0 and worker.copies[-1].ready.cell == cell

    worker.run("steps = ['first']")
    for cell, step in enumerate(("second", "third"), 1):
        worker.wait_for(partial(has_copy_of, cell))
        worker.recover()
        worker.run_after(f"steps.append({step!r})")
    assert worker.run_after("steps").result == "['first', 'second', 'third']"


def test_a_promoted_copy_has_a_copy_before_any_cell_in_a_thread_runs(
    worker: SnapshotDouble,
) -> None:
    worker.run("total = 41")
    copy = worker.wait_for_copy()
    worker.kill()
    worker.promote(copy, waiting=f"##thread\ntotal = 0\n{HANG}")
    copy = worker.wait_for_copy(copy.ready.number + 1)
    assert copy.ready.lost == []
    worker.recover(copy)
    assert worker.run_after("total + 1").result == "42"


def test_a_namespace_comes_back_with_its_identities(worker: SnapshotDouble) -> None:
    pytest.importorskip("pandas")
    worker.run(
        "import numpy as np, pandas as pd, socket, threading, math as m\n"
        "class Point:\n    def __init__(self): self.x = 1\n"
        "point = Point(); square = lambda n: n * n\n"
        "def count():\n    yield from range(10)\n"
        "generator = count(); next(generator)\n"
        "table = pd.DataFrame({'a': [1, 2]}); array = np.arange(5)\n"
        "lock = threading.Lock(); lock.acquire()\n"
        "file = open('text', 'w+'); file.write('abc'); file.flush()\n"
        "sock = socket.socket(); mapping = {'k': [1]}\n"
        "ids = [id(o) for o in (point, square, generator, table, array, lock, file, sock, mapping)]"
    )
    worker.wait_for_copy()
    worker.submit(f"mapping['k'].append(2); next(generator); array += 1; file.write('d')\n{HANG}")
    worker.recover()
    found = values(
        worker,
        "[point.x, square(3), next(generator), table.a.sum().item(), array.tolist(),"
        " lock.locked(), file.tell(), sock.fileno() > 0, mapping, m.floor(1.5),"
        " ids == [id(o) for o in (point, square, generator, table, array, lock, file, sock,"
        " mapping)]]",
    )
    assert found == [1, 9, 1, 3, [0, 1, 2, 3, 4], True, 3, True, {"k": [1]}, 1, True]


def test_execution_counts_go_on_after_the_killed_cell(worker: SnapshotDouble) -> None:
    worker.run("a = 1")
    worker.wait_for_copy()
    worker.submit(HANG)
    worker.recover(cell_floor=2)
    outputs = worker.run_after("In[-1], len(In)")
    assert outputs.reply["execution_count"] == 3
    assert outputs.result == "('In[-1], len(In)', 4)"


def test_the_history_has_each_line_once_in_one_session(worker: SnapshotDouble) -> None:
    worker.run("first = 1")
    worker.wait_for_copy()
    worker.run("second = 2")
    worker.run("get_ipython().history_manager.writeout_cache()")
    worker.recover(worker.copies[0], cell_floor=3)
    worker.run_after("fourth = 4")
    found = values(
        worker,
        "(lambda m: [m.writeout_cache(), [list(row) for row in m.get_range(m.session_number)]][1])"
        "(get_ipython().history_manager)",
    )
    assert isinstance(found, list)
    session = found[0][0]
    lines = [tuple(row[1:]) for row in found if row[0] == session]
    assert lines[:4] == [
        (1, "first = 1"),
        (2, "second = 2"),
        (3, "get_ipython().history_manager.writeout_cache()"),
        (4, "fourth = 4"),
    ]
    assert len(lines) == 5


def test_no_descriptor_is_left_by_a_promotion(worker: SnapshotDouble) -> None:
    worker.run("import os")
    found: list[object] = []
    for _ in range(4):
        worker.snapshot()
        worker.recover()
        worker.run_after("1")
        saver = "get_ipython().history_manager.save_thread"
        worker.run_after(f"while getattr({saver}, 'connection', None) is None: pass")
        found.append(values(worker, "len(os.listdir('/proc/self/fd'))"))
    assert found[0] == found[-1], found


def test_a_question_that_another_thread_was_answering_holds_up_no_later_one(
    worker: SnapshotDouble,
) -> None:
    worker.run(
        "import threading\nfrom unstuck_worker import history, introspect\n"
        "def hold():\n"
        "    with history.turns.take(), introspect.turns.take():\n"
        "        threading.Event().wait(600)\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "while not history.turns._lock.locked(): pass"
    )
    worker.snapshot()
    worker.recover()
    tail = {"hist_access_type": "tail", "n": 1}
    job = worker.request(MsgType.history_request, tail, mode=RunMode.thread)
    assert worker.wait(job).reply["status"] == "ok"
    job = worker.request(
        MsgType.complete_request, {"code": "impor", "cursor_pos": 5}, mode=RunMode.thread
    )
    assert "import" in worker.wait(job).reply["matches"]


def test_random_streams_go_on_as_they_would_have(worker: SnapshotDouble) -> None:
    pytest.importorskip("numpy")
    draw = "[random.random(), np.random.rand(), rng.random(), own.random()]"
    worker.run(
        "import random, numpy as np\nrandom.seed(1); np.random.seed(1)\n"
        "rng = np.random.default_rng(1); own = random.Random(1)"
    )
    worker.wait_for_copy()
    expected = values(worker, draw)
    worker.recover(worker.copies[0])
    assert values(worker, draw) == expected


def test_tasks_sleeps_and_callbacks_of_the_loop_go_on(worker: SnapshotDouble) -> None:
    worker.run(
        "import asyncio\nticks = []\n"
        "async def tick():\n    while True:\n        ticks.append(1); await asyncio.sleep(0.01)\n"
        "task = asyncio.create_task(tick())"
    )
    worker.wait_for_copy()
    worker.recover()
    before = values(worker, "len(ticks)")
    worker.run_after("await asyncio.sleep(0.1)")
    assert isinstance(before, int)
    after = values(worker, "len(ticks)")
    assert isinstance(after, int)
    assert after > before
    code = "loop = asyncio.get_running_loop(); await loop.run_in_executor(None, lambda: 7)"
    assert worker.run_after(code).result == "7"


def test_a_server_of_the_loop_serves_again(worker: SnapshotDouble) -> None:
    worker.run(
        "import asyncio\n"
        "async def answer(reader, writer):\n"
        "    writer.write(await reader.readline()); await writer.drain(); writer.close()\n"
        "server = await asyncio.start_server(answer, '127.0.0.1', 0)\n"
        "port = server.sockets[0].getsockname()[1]"
    )
    copy = worker.wait_for_copy()
    assert copy.ready.lost == []
    worker.recover()
    code = (
        "reader, writer = await asyncio.open_connection('127.0.0.1', port)\n"
        "writer.write(b'hello\\n')\nawait reader.readline()"
    )
    assert worker.run_after(code).result == "b'hello\\n'"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_callers_and_their_threads_work_again(worker: SnapshotDouble, backend: str) -> None:
    worker.run(
        "from unstuck import Caller\nimport asyncio\n"
        f"thread = Caller.start_new(name='own', backend={backend!r})\n"
        "value = await thread.call_soon(lambda: 1)\n"
        "value += await Caller.to_thread(lambda: 1)\n"
        "value += await Caller().call_soon(lambda: 1)"
    )
    worker.wait_for_copy()
    worker.recover()
    code = (
        f"thread = Caller.start_new(name='own', backend={backend!r})\n"
        "value += await thread.call_soon(lambda: 10)\n"
        "value += await Caller.to_thread(lambda: 10)\n"
        "value += await Caller().call_later(0.01, lambda: 10)\nvalue"
    )
    assert worker.run_after(code).result == "33"


def test_cells_in_threads_subshells_and_tasks_work_again(worker: SnapshotDouble) -> None:
    def run_all(text: str) -> list[str]:
        jobs = [
            worker.submit(f"##thread\nprint({text!r})", mode=RunMode.thread),
            worker.submit(f"print({text!r})", subshell="sub"),
            worker.submit(f"print({text!r})", mode=RunMode.task),
        ]
        return [worker.wait(job).text() for job in jobs]

    assert run_all("before") == ["before\n"] * 3
    worker.run("pass")
    copy = worker.wait_for_copy()
    assert copy.ready.lost == []
    worker.recover()
    assert run_all("after") == ["after\n"] * 3
    job = worker.request(
        MsgType.complete_request, {"code": "pri", "cursor_pos": 3}, mode=RunMode.thread
    )
    assert "print" in worker.wait(job).reply["matches"]


def test_jobs_of_the_killed_worker_never_end_again(worker: SnapshotDouble) -> None:
    task = worker.submit(
        "##task\nimport asyncio\ntry:\n    await asyncio.sleep(100)\nfinally:\n    ended = True",
        mode=RunMode.task,
    )
    copy = worker.snapshot()
    assert copy.ready.lost == ["the ##task cell that runs"]
    worker.recover()
    worker.wait_for(lambda: worker.run_after("'ended' in globals()").result == "True")
    finished = [m.job for m in worker.all if isinstance(m, Finished)]
    assert task not in finished


def test_an_interrupt_reaches_cells_of_a_promoted_copy(worker: SnapshotDouble) -> None:
    worker.run("import time")
    worker.wait_for_copy()
    worker.recover()
    for code in ("time.sleep(30)", "import asyncio; await asyncio.sleep(30)", "while True: pass"):
        job = worker.submit(f"print('up', flush=True)\n{code}")
        worker.wait_for(partial(says_up, worker.jobs[job]))
        began_s = time.monotonic()
        worker.signal(signal.SIGINT)
        assert worker.wait(job).reply["ename"] == "KeyboardInterrupt"
        assert time.monotonic() - began_s < 10


def test_prints_of_c_code_and_children_are_heard(worker: SnapshotDouble) -> None:
    worker.run("import subprocess, os")
    worker.wait_for_copy()
    worker.recover()
    worker.run_after("print('one'); subprocess.run(['echo', 'two']); os.write(1, b'three\\n');")
    worker.wait_for(lambda: "three" in worker.jobs[worker.running].text())
    assert worker.jobs[worker.running].text() == "one\ntwo\nthree\n"


def test_a_question_is_answered_in_a_promoted_copy(worker: SnapshotDouble) -> None:
    worker.run("pass")
    worker.wait_for_copy()
    worker.recover()
    job = worker.submit("input('name? ')")
    worker.wait_for(lambda: worker.requests)
    worker.answer("me")
    assert worker.wait(job).result == "'me'"


def test_a_promoted_copy_ends_with_its_exit_handlers(
    worker: SnapshotDouble, tmp_path: Path
) -> None:
    worker.run(
        "import atexit, tempfile, pathlib\nfolder = tempfile.TemporaryDirectory(dir='.')\n"
        "atexit.register(lambda: pathlib.Path('ended').write_text('yes'))"
    )
    worker.wait_for_copy()
    worker.recover()
    assert worker.stop() == 0
    assert (tmp_path / "ended").read_text() == "yes"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_an_alarm_of_before_still_comes(worker: SnapshotDouble) -> None:
    worker.run(
        "import signal, time\nrang = []\nsignal.signal(signal.SIGALRM, lambda *a: rang.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 3.0)"
    )
    worker.wait_for_copy()
    worker.recover()
    code = (
        "end = time.monotonic() + 20\nwhile not rang and time.monotonic() < end: time.sleep(0.01)"
    )
    assert worker.run_after(f"{code}\nrang").result == "[1]"


def test_a_comm_of_before_is_heard_in_a_promoted_copy(worker: SnapshotDouble) -> None:
    worker.run(
        "from comm import create_comm\nheard = []\ncomm = create_comm(target_name='t')\n"
        "comm.on_msg(lambda message: heard.append(message['content']['data']))"
    )
    worker.wait_for_copy()
    comm_id = worker.run("print(comm.comm_id)").text().strip()
    worker.recover(worker.copies[0])
    job = worker.request(MsgType.comm_msg, {"comm_id": comm_id, "data": {"pressed": 1}})
    worker.wait(job)
    assert values(worker, "heard") == [{"pressed": 1}]
    worker.run_after("comm.send({'answer': 2})")
    (content,) = worker.jobs[worker.running].published("comm_msg")
    assert content == {"comm_id": comm_id, "data": {"answer": 2}}


def test_a_figure_and_a_logger_of_before_go_on(worker: SnapshotDouble, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    worker.run(
        "import logging, matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\n"
        "axes.plot([1, 2])\nplt.ioff(); logging.basicConfig(filename='log', force=True)\n"
        "logging.warning('one')"
    )
    worker.wait_for_copy()
    worker.recover()
    worker.run_after("logging.warning('two'); axes.plot([3]); figure.savefig('figure.png')")
    assert values(worker, "[len(axes.lines), plt.isinteractive()]") == [2, False]
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert (tmp_path / "log").read_text() == "WARNING:root:one\nWARNING:root:two\n"


def test_a_cell_in_a_thread_leaves_a_newer_copy_before_the_next_one(
    worker: SnapshotDouble,
) -> None:
    worker.run("x = 1")
    first = worker.wait_for_copy()
    worker.wait(worker.submit("##thread\nx = 2", mode=RunMode.thread))
    # One more is worth its cost when the first one is old enough.
    worker.wait_for(lambda: time.time() > first.ready.taken_at + 1)
    worker.run("y = 1")
    worker.recover(worker.wait_for_copy(2))
    assert worker.run_after("x, 'y' in globals()").result == "(2, False)"


def test_what_is_lost_is_named(worker: SnapshotDouble) -> None:
    worker.run(
        "import threading, subprocess, socket\n"
        "done = threading.Event()\n"
        "threading.Thread(target=done.wait, name='collector').start()\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "server = socket.create_server(('127.0.0.1', 0)); port = server.getsockname()[1]\n"
        "client = socket.create_connection(('127.0.0.1', port)); peer, _ = server.accept()"
    )
    copy = worker.wait_for_copy()
    port = values(worker, "port")
    assert "the thread 'collector'" in copy.ready.lost
    assert "the process sleep" in copy.ready.lost
    assert f"the connection to 127.0.0.1:{port}" in copy.ready.lost
    assert not copy.ready.is_faithful
    worker.recover(copy)
    assert values(worker, "[child.poll(), child.wait(1), child.returncode]") == [-9, -9, -9]


@pytest.mark.parametrize(
    "left",
    [
        "asyncio.create_task(asyncio.sleep(600))",
        "asyncio.get_running_loop().call_later(600, print)",
        "await asyncio.start_server(print, '127.0.0.1', 0)",
    ],
    ids=["task", "timer", "server"],
)
def test_what_a_cell_has_left_in_its_thread_s_loop_is_named(
    worker: SnapshotDouble, left: str
) -> None:
    def run_in_thread(code: str) -> None:
        job = worker.submit(f"##thread name=loop\n{code}", mode=RunMode.thread)
        assert worker.wait(job).reply["status"] == "ok"

    run_in_thread("import asyncio")
    assert worker.snapshot("before").ready.lost == []
    run_in_thread(f"left = {left}")
    assert worker.snapshot("after").ready.lost == ["the thread 'loop'"]


def test_pipes_within_the_worker_work_again(worker: SnapshotDouble) -> None:
    worker.run(
        "import os, multiprocessing\nreading, writing = os.pipe()\n"
        "queue = multiprocessing.Queue()\n"
        "queue.put(1); queue.get()"
    )
    worker.wait_for_copy()
    worker.recover()
    code = "os.write(writing, b'x'); queue.put(2); print(os.read(reading, 1), queue.get(timeout=5))"
    assert worker.run_after(code).text() == "b'x' 2\n"


def test_an_import_that_another_thread_had_begun_can_be_made_again(
    worker: SnapshotDouble, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys, threading\n"
        "if threading.current_thread() is not threading.main_thread():\n"
        "    sys.begun.set()\n    sys.never.wait(600)\n"
    )
    worker.run(
        "import sys, threading\nsys.begun, sys.never = threading.Event(), threading.Event()\n"
        "def load(): import slow\n"
        "threading.Thread(target=load, name='importer', daemon=True).start()\n"
        "sys.begun.wait(20)"
    )
    copy = worker.snapshot()
    assert copy.ready.lost == ["the thread 'importer'"]
    worker.recover(copy)
    assert worker.run_after("import slow; slow.__name__").result == "'slow'"


def test_executors_work_again(worker: SnapshotDouble) -> None:
    worker.run(
        "from concurrent.futures import ThreadPoolExecutor\nimport asyncio, anyio\n"
        "pool = ThreadPoolExecutor(2); list(pool.map(abs, [-1, -2]))\n"
        "await asyncio.to_thread(abs, -1); await anyio.to_thread.run_sync(abs, -1)"
    )
    copy = worker.wait_for_copy()
    assert copy.ready.lost == []
    worker.recover()
    code = (
        "list(pool.map(abs, [-1, -2])) + [await asyncio.to_thread(abs, -3),"
        " await anyio.to_thread.run_sync(abs, -4)]"
    )
    assert worker.run_after(code).result == "[1, 2, 3, 4]"


def test_a_sleeping_copy_dies_with_its_broker(worker: SnapshotDouble) -> None:
    worker.run("pass")
    copy = worker.wait_for_copy()
    copy.connection.close()
    worker.copies.remove(copy)
    end = time.monotonic() + 10
    import os

    while os.waitpid(copy.ready.pid, os.WNOHANG)[0] == 0:
        assert time.monotonic() < end
        time.sleep(0.005)
