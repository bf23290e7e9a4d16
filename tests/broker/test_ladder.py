"""The rungs of an interrupt: which follows which, and when."""

from __future__ import annotations

import pytest

from unstuck.config import Config, InterruptPolicy
from unstuck_broker.ladder import Ladder, Rung, Why

CONFIG = Config(interrupt_hard_s=0.5, interrupt_grace_s=2.0)


def begin(policy: InterruptPolicy = "auto", why: Why = "interrupt") -> Ladder:
    config = Config(interrupt_hard_s=0.5, interrupt_grace_s=2.0, interrupt_policy=policy)
    return Ladder({1}, 1, 100.0, config, why)


def climb(ladder: Ladder, now: float) -> list[Rung]:
    taken: list[Rung] = []
    while (rung := ladder.climb(now)) is not None:
        taken.append(rung)
    return taken


def test_it_begins_with_a_signal_and_waits_for_the_next_rung() -> None:
    ladder = begin()
    assert (ladder.rung, ladder.deadline_s()) == (Rung.SIGNALLED, 100.5)
    assert climb(ladder, 100.4) == []


@pytest.mark.parametrize("policy", ["auto", "never"])
def test_without_a_kill_it_ends_with_the_stack_being_taken(policy: InterruptPolicy) -> None:
    ladder = begin(policy)
    assert climb(ladder, 100.5) == [Rung.RAISED]
    assert ladder.deadline_s() == 102.0
    assert climb(ladder, 102.0) == [Rung.LOOKED]
    assert ladder.deadline_s() is None
    assert climb(ladder, 1000.0) == []


@pytest.mark.parametrize(
    ("policy", "why"),
    [("always", "interrupt"), ("always", "timeout"), ("auto", "timeout"), ("never", "timeout")],
)
def test_always_and_a_timeout_kill_at_the_grace(policy: InterruptPolicy, why: Why) -> None:
    ladder = begin(policy, why)
    assert climb(ladder, 102.0) == [Rung.RAISED, Rung.KILL]
    assert ladder.at_the_end
    assert ladder.deadline_s() is None


def test_the_stack_is_shown_once() -> None:
    ladder = begin()
    assert not ladder.announce()
    climb(ladder, 102.0)
    assert ladder.announce()
    assert not ladder.announce()


@pytest.mark.parametrize("now", [100.0, 100.5, 102.0])
def test_a_second_interrupt_before_the_announcement_never_kills(now: float) -> None:
    ladder = begin()
    climb(ladder, now)
    assert not ladder.insist(1, now)
    assert not ladder.at_the_end


@pytest.mark.parametrize(("policy", "kills"), [("auto", True), ("never", False)])
def test_a_second_interrupt_after_the_announcement_kills_by_policy(
    policy: InterruptPolicy, kills: bool
) -> None:
    ladder = begin(policy)
    climb(ladder, 102.0)
    ladder.announce()
    assert ladder.insist(1, 103.0) is kills
    assert ladder.at_the_end is kills


def test_a_second_interrupt_covers_what_came_before_it() -> None:
    ladder = begin()
    ladder.insist(9, 100.1)
    assert ladder.horizon == 9


def test_an_interrupt_that_has_come_through_leaves_time_for_a_traceback() -> None:
    ladder = begin()
    ladder.caught(1, 100.1)
    assert climb(ladder, 110.0) == []
    assert climb(ladder, 110.1) == [Rung.LOOKED]


def test_who_insists_after_the_grace_does_not_wait_for_the_traceback() -> None:
    ladder = begin()
    ladder.caught(1, 100.1)
    assert not ladder.insist(1, 101.9)
    assert climb(ladder, 102.0) == []
    assert not ladder.insist(1, 102.1)
    assert climb(ladder, 102.1) == [Rung.LOOKED]
