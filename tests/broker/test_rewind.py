"""A cell goes back to a snapshot, or asks which there are."""

from __future__ import annotations

from broker.recoveries import accounts, run_cell
from pump import Pump
from unstuck.config import Config
from unstuck.protocol import (
    AskRewind,
    AskSnapshots,
    RewindAnswer,
    SnapshotList,
    SnapshotSkipped,
)
from unstuck_broker.actions import Action, SendToWorker
from unstuck_broker.events import CopiesMeasured
from words import shown, tell


def answers(actions: list[Action]) -> list[object]:
    """Give what the worker is told."""
    return [action.message for action in actions if isinstance(action, SendToWorker)]


def take_two(pump: Pump) -> None:
    """Run two cells, with a snapshot after each."""
    run_cell(pump, "m1", 1)
    pump.snapshot(1)
    run_cell(pump, "m2", 2)
    pump.snapshot(2)


def test_a_rewind_undoes_the_last_cell_and_its_cell_ends_when_it_is_done(pump: Pump) -> None:
    take_two(pump)
    pump.execute("m3")
    job = pump.job_of("m3")
    assert answers(pump.say(AskRewind(1, job))) == [
        RewindAnswer(1, "", "to after cell [1]; undone: cell [2]")
    ]
    assert tell(pump.finish("m3")) == ["kill: rewind"]
    assert shown(tell(pump.die(9))) == ["promote copy 1"]
    actions = pump.ready()
    lines = shown(tell(actions))
    assert lines.pop(0) == "drop copies 2"
    assert lines[0].startswith("m3 stderr '[unstuck] The variables are as they were after cell [1]")
    assert lines[1:] == ["m3 display_data", "m3 execute_reply ok", "m3 idle"]
    assert accounts(actions)[0]["is_rewind"]


def test_a_rewind_that_would_undo_more_than_one_cell_has_to_be_named(pump: Pump) -> None:
    run_cell(pump, "m1", 1)
    pump.snapshot(1)
    run_cell(pump, "m2", 2)
    run_cell(pump, "m3", 3)
    pump.execute("m4")
    (answer,) = answers(pump.say(AskRewind(1, pump.job_of("m4"))))
    assert isinstance(answer, RewindAnswer)
    assert "would undo cells [2]-[3]; %rewind 1 does that" in answer.refused
    assert "m4 idle" in tell(pump.finish("m4"))


def test_a_rewind_to_a_name_that_is_not_there_is_refused(pump: Pump) -> None:
    pump.execute("m1")
    (answer,) = answers(pump.say(AskRewind(1, pump.job_of("m1"), "clean")))
    assert answer == RewindAnswer(1, "there is no snapshot 'clean': see %snapshots")


def test_a_worker_that_crashes_in_the_rewinding_cell_gets_back_the_newest(pump: Pump) -> None:
    take_two(pump)
    pump.execute("m3")
    pump.say(AskRewind(1, pump.job_of("m3")))
    assert "promote copy 2" in tell(pump.die())
    assert pump.ready()


def test_a_rewind_whose_copy_fails_gets_back_the_newest_and_says_so(pump: Pump) -> None:
    take_two(pump)
    pump.execute("m3")
    pump.say(AskRewind(1, pump.job_of("m3")))
    pump.finish("m3")
    pump.die(9)
    assert shown(tell(pump.die(9))) == ["promote copy 2"]
    actions = pump.ready()
    assert not accounts(actions)[0]["is_rewind"]
    assert "m3 execute_reply ok" in tell(actions)


def test_the_snapshots_are_listed_with_why_the_last_was_not_taken(pump: Pump) -> None:
    take_two(pump)
    pump.say(SnapshotSkipped(3, "", "memory is short"))
    pump.feed(CopiesMeasured({1: 500}, 500, 10**9))
    (answer,) = answers(pump.say(AskSnapshots(9)))
    assert isinstance(answer, SnapshotList)
    assert answer.request == 9
    assert answer.last_skipped == "memory is short"
    assert [(r.number, r.memory_bytes, r.is_current) for r in answer.rows] == [
        (1, 500, False),
        (2, -1, True),
    ]


def test_the_ring_of_named_snapshots_is_as_long_as_its_setting() -> None:
    pump = Pump(Config(snapshot_count=1))
    pump.ready()
    pump.snapshot(1, name="a")
    pump.snapshot(2, name="b")
    assert tell(pump.snapshot(3)) == []
    assert pump.copies == {2, 3}
