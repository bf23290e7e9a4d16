"""The line under a cell that keeps the worker from answering."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck_broker.events import StackTaken, WorkerProgress
from unstuck_broker.hangs import STACK_NUMBER
from words import tell

if TYPE_CHECKING:
    from pump import Pump

STACK = 'Current thread 0x1 (most recent call first):\n  File "/x/y.py", line 3 in f'


def hang(pump: Pump) -> list[str]:
    """Let the worker not answer until its stack is taken; give what is shown then."""
    pump.feed(WorkerProgress(False, 1))
    pump.now += 9.0
    assert tell(pump.feed(WorkerProgress(False, 1))) == [f"take stack {STACK_NUMBER}"]
    return tell([*pump.feed(StackTaken(STACK, (STACK_NUMBER,))), *pump.pass_time(0.1)])


def test_it_stands_under_the_cell_of_the_main_queue(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##thread")
    (line,) = hang(pump)
    assert line.startswith("m1 stderr '\\r[unstuck] no answer for 10 s: C code called from line 3")


def test_where_no_cell_of_the_queue_runs_it_stands_under_the_thread_cell(pump: Pump) -> None:
    pump.execute("m1")
    pump.finish("m1")
    pump.execute("m2", "##thread")
    (line,) = hang(pump)
    assert line.startswith("m2 stderr")
    ended = [*pump.feed(WorkerProgress(True, 1)), *pump.pass_time(0.1)]
    assert tell(ended) == ["m2 stderr '\\n'"]
