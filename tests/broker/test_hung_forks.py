"""A fork that does not come back: the worker is killed, and the copy before brings it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.protocol import (
    SnapshotSkipped,
    Snapshotted,
)
from unstuck_broker.events import OutputsHeld
from words import tell

if TYPE_CHECKING:
    from pump import Pump


def test_a_fork_that_does_not_come_back_is_killed_and_recovered_from(pump: Pump) -> None:
    pump.snapshot(1)
    pump.begin_snapshot(2, deadline_s=2.0)
    assert tell(pump.pass_time(2.1)) == []
    assert tell(pump.pass_time(0.5)) == ["kill: its snapshot hung in fork()"]
    assert "promote copy 1" in tell(pump.die(9))


def test_a_fork_that_comes_back_or_is_skipped_is_left_alone(pump: Pump) -> None:
    pump.begin_snapshot(1)
    pump.say(Snapshotted(1, 0.1, 1, 0))
    pump.begin_snapshot(2)
    pump.say(SnapshotSkipped(3, "", "cannot fork"))
    assert tell(pump.pass_time(10)) == []
    assert tell(pump.copy_appears(2)) == ["drop copies 2"]


def test_a_fork_whose_answer_nobody_reads_is_not_taken_for_hung(pump: Pump) -> None:
    pump.begin_snapshot(1)
    pump.feed(OutputsHeld(held=True))
    assert tell(pump.pass_time(10)) == []
    pump.feed(OutputsHeld(held=False))
    assert tell(pump.pass_time(0.4)) == []
    pump.say(Snapshotted(1, 0.1, 1, 0))
    assert tell(pump.pass_time(10)) == []
