"""What an interrupt may cost: it kills at once where nothing but its cell is lost, else it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.recoveries import BEFORE, run_cell
from unstuck_broker.reason import Reason, Why
from words import tell

if TYPE_CHECKING:
    from pump import Pump


def test_an_interrupt_kills_at_the_grace_when_only_the_cell_would_be_lost(pump: Pump) -> None:
    pump.snapshot(1)
    pump.execute("m1")
    pump.interrupt()
    assert tell(pump.pass_time(2.5))[-1] == "kill: the cell did not react to its interrupt"
    pump.die(9, reason=Reason(Why.INTERRUPT, "the cell did not react to its interrupt"))
    pump.ready()
    assert pump.ledger.replies["m1"][0]["ename"] == "KeyboardInterrupt"
    assert pump.ledger.replies["m1"][0]["evalue"].endswith(BEFORE)


def announcement(pump: Pump) -> str:
    """Interrupt, and give what is shown after the grace."""
    pump.interrupt()
    pump.pass_time(2.5)
    lines = tell(pump.settle() + pump.pass_time(0.1))
    return next(line for line in lines if "still running" in line)


def test_an_interrupt_asks_when_more_than_the_cell_would_be_lost(pump: Pump) -> None:
    run_cell(pump, "m1", 1)
    pump.snapshot(1)
    run_cell(pump, "m2", 2)
    pump.execute("m3")
    told = announcement(pump)
    assert "interrupt again to kill it; the variables will be as they were after cell [1]" in told
    assert "missing: cell [2]" in told


def test_an_interrupt_asks_when_a_thread_would_be_lost(pump: Pump) -> None:
    pump.snapshot(1, is_faithful=False, lost=["thread poll"])
    pump.execute("m1")
    assert "lost: thread poll" in announcement(pump)


def test_an_interrupt_asks_when_another_cell_runs_beside(pump: Pump) -> None:
    pump.execute("m1", "##task")
    pump.snapshot(1)
    pump.execute("m2")
    assert "interrupt again" in announcement(pump)
