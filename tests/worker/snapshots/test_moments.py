"""When a worker takes a snapshot, and what keeps it from that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from unstuck.typing import MsgType, RunMode
from worker.copies_double import SnapshotDouble

if TYPE_CHECKING:
    from pathlib import Path


def test_off_takes_none_and_auto_takes_them_again(tmp_path: Path) -> None:
    worker = SnapshotDouble.start(tmp_path, snapshots="off")
    try:
        worker.run("x = 1")
        worker.run("import time; time.sleep(0.2)")
        assert worker.last() == 0
        worker.run("get_ipython().kernel.settings['snapshots'] = 'auto'")
        worker.wait_for_copy()
    finally:
        worker.close()


def test_always_takes_one_before_each_cell(tmp_path: Path) -> None:
    worker = SnapshotDouble.start(tmp_path, snapshots="always")
    try:
        for number in range(1, 4):
            worker.run(f"x = {number}")
        worker.wait_for(lambda: worker.last() >= 3)
        assert {copy.ready.cell for copy in worker.copies} >= {0, 1, 2}
    finally:
        worker.close()


def test_a_tag_takes_one_before_its_cell_and_a_tag_forbids_it(worker: SnapshotDouble) -> None:
    worker.run("x = 1", metadata={"tags": ["snapshot"]})
    worker.wait_for(lambda: worker.last() >= 1)
    assert worker.copies[0].ready.cell == 0
    worker.run("y = 1", metadata={"tags": ["no-snapshot"]})
    worker.wait_for(lambda: worker.skipped)
    assert worker.skipped == ["the cell has the tag no-snapshot"]


def test_a_thread_in_c_code_prevents_them_and_is_named(worker: SnapshotDouble) -> None:
    pytest.importorskip("numpy")
    worker.run(
        "import threading, numpy\na = numpy.ones((500, 500)); stop = []\n"
        "def multiply():\n    while not stop: a @ a\n"
        "thread = threading.Thread(target=multiply, name='multiplier'); thread.start()"
    )
    for number in range(100):
        assert worker.run_after(f"{number} + 1").result == str(number + 1)
    reason = "the thread 'multiplier' runs C code"
    worker.wait_for(lambda: reason in worker.skipped)
    # On a busy machine what we write ourselves may be the reason for a moment.
    ours = {
        "outputs or history are being written",
        "the thread 'IPythonHistorySavingThread' runs C code",
    }
    assert set(worker.skipped) - ours == {reason}
    worker.run("stop.append(1); thread.join()")
    worker.wait_for_copy()


def test_one_that_costs_too_much_is_taken_once_it_has_been_worth_it(worker: SnapshotDouble) -> None:
    worker.run("snapshots = get_ipython().kernel.snapshots")
    worker.wait_for_copy()
    # As if the last fork had been held up by a busy machine.
    worker.run("snapshots._stakes.fork_s = 0.3; x = 1")
    worker.wait_for(lambda: worker.skipped)
    assert worker.skipped == ["one costs 0.3 s, more than the cells were worth"]
    worker.wait_for_copy()


def test_an_open_transaction_prevents_them(worker: SnapshotDouble) -> None:
    worker.run(
        "import sqlite3\ncon = sqlite3.connect('data.db')\n"
        "con.execute('create table t (x)'); con.commit(); con.execute('insert into t values (1)')"
    )
    worker.wait_for(lambda: worker.skipped)
    assert worker.skipped[0].startswith("a transaction is open on ")
    worker.run("con.commit()")
    worker.wait_for_copy()


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


@pytest.mark.parametrize("beside", ["task", "comm handler", "timer"])
def test_what_runs_beside_the_queue_leaves_a_newer_copy_before_the_next_cell(
    worker: SnapshotDouble, beside: str
) -> None:
    worker.run(
        "import asyncio\nfrom comm import create_comm\nseen = []\n"
        "def see(*_): seen.append(1)\n"
        "comm = create_comm(target_name='t', comm_id='c'); comm.on_msg(see)"
    )
    if beside == "timer":
        worker.run(
            "def tick():\n    see(); asyncio.get_running_loop().call_later(0.05, tick)\ntick()"
        )
    first = worker.wait_for_copy()
    # One more is worth its cost when the first one is old enough.
    worker.wait_for(lambda: time.time() > first.ready.taken_at + 1)
    if beside == "task":
        worker.wait(worker.submit("##task\nsee()", mode=RunMode.task))
    elif beside == "comm handler":
        worker.wait(worker.request(MsgType.comm_msg, {"comm_id": "c", "data": {}}))
    seen = worker.run_after("len(seen)").result
    assert int(seen) >= (10 if beside == "timer" else 1)
    worker.recover(worker.wait_for_copy(first.ready.number + 1))
    assert int(worker.run_after("len(seen)").result) >= int(seen)


@pytest.mark.parametrize("mode", [RunMode.task, RunMode.thread])
def test_work_at_risk_is_kept_from_a_cell_beside_the_queue_that_comes_at_once(
    worker: SnapshotDouble, mode: RunMode
) -> None:
    worker.run("import time, os; total = 41; time.sleep(0.5)")
    worker.submit(f"{mode}\ntotal = 0; os.abort()", mode=mode)
    copy = worker.wait_for_copy(1)
    worker.recover(copy)
    assert worker.run_after("total + 1").result == "42"


def test_a_live_cuda_context_prevents_them_and_is_named(worker: SnapshotDouble) -> None:
    worker.run(
        "from unstuck_worker.snapshots import holdings\n"
        "holdings.descriptors = lambda: [(-1, '/dev/nvidia-uvm'), (-1, '/dev/nvidia0')]"
    )
    worker.wait_for(lambda: worker.skipped)
    assert worker.skipped == ["a CUDA context is open"]
