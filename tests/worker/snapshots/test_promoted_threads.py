"""A promoted copy has one thread: pools, loops and locks that others had or held work in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unstuck.typing import MsgType, RunMode
from worker.copies_double import SnapshotDouble, values

if TYPE_CHECKING:
    from pathlib import Path


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
