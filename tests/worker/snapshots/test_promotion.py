"""A promoted copy is the worker: everything that a session holds is there in it."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from unstuck.protocol import Finished, Snapshotting
from worker.copies_double import Copy, SnapshotDouble, values

if TYPE_CHECKING:
    from pathlib import Path


HANG = "import itertools; max(itertools.repeat(1))"


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


def spares(worker: SnapshotDouble) -> list[Copy]:
    worker.collect()
    return [copy for copy in worker.copies if copy.ready.is_spare]


def test_a_large_copy_has_a_spare_that_saves_it_a_fork_before_its_first_cell(
    worker: SnapshotDouble,
) -> None:
    worker.run("data = bytearray(b'x') * (300 << 20)")
    copy = worker.wait_for_copy()
    worker.wait_for(lambda: spares(worker))
    (spare,) = spares(worker)
    assert spare.ready.number == copy.ready.number
    worker.kill()
    worker.promote(copy, is_guarded=True)
    worker.run_after("data[0] = 1")
    kinds = [type(message) for message in worker.all]
    assert Snapshotting not in kinds[: kinds.index(Finished)]
    worker.recover(spare)
    assert worker.run_after("data[0], len(data)").result == str((ord("x"), 300 << 20))
    kinds = [type(message) for message in worker.all]
    assert Snapshotting in kinds[: kinds.index(Finished)], "nothing guards it any more"


def test_a_small_copy_has_no_spare(worker: SnapshotDouble) -> None:
    worker.run("x = 1")
    worker.wait_for_copy()
    worker.run("import time; time.sleep(0.5)")
    assert spares(worker) == []


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


def test_a_sleeping_copy_dies_with_its_broker(worker: SnapshotDouble) -> None:
    worker.run("pass")
    copy = worker.wait_for_copy()
    copy.connection.close()
    worker.copies.remove(copy)
    end = time.monotonic() + 10
    while os.waitpid(copy.ready.pid, os.WNOHANG)[0] == 0:
        assert time.monotonic() < end
        time.sleep(0.005)
