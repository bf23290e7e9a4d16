"""The rests of a reader in a flood of outputs, with a loop whose time is a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from broker.clock import Clock
from unstuck_broker.pace import FLOOD_BYTES, LONGEST_S, QUIET_S, Pace, Precedence

if TYPE_CHECKING:
    import asyncio


class Source:
    """A source of outputs: says what was done to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.done: list[str] = []
        loop = cast("asyncio.AbstractEventLoop", self.clock)
        stop, go_on, look = (
            lambda word=w: self.done.append(word) for w in ("stop", "go on", "look")
        )
        self.precedence = Precedence(loop, look)
        self.pace = Pace(loop, stop, go_on, self.precedence)

    def read(self, size_bytes: int, took_s: float, *, has_more: bool = False) -> bool:
        if not self.pace.begin():
            return False
        self.clock.now_s += took_s
        self.pace.end(size_bytes, has_more=has_more)
        return True


@pytest.fixture
def source() -> Source:
    return Source()


def test_a_small_slice_is_followed_by_no_rest(source: Source) -> None:
    source.read(FLOOD_BYTES - 1, 0.001)
    assert source.done == []
    assert source.clock.timer is None


def test_a_slice_of_a_flood_is_followed_by_a_rest_as_long(source: Source) -> None:
    source.read(FLOOD_BYTES, 0.25)
    assert source.done == ["stop"]
    source.clock.wake()
    assert source.done == ["stop", "go on"]
    assert source.clock.now_s == 0.5


def test_what_is_read_during_a_rest_does_not_make_another(source: Source) -> None:
    source.read(FLOOD_BYTES, 0.25)
    source.read(FLOOD_BYTES, 0.25)
    assert source.done == ["stop", "look"]
    source.clock.wake()
    assert source.done == ["stop", "look", "go on"]


def test_a_rest_that_is_forgotten_starts_nothing(source: Source) -> None:
    source.read(FLOOD_BYTES, 0.25)
    source.pace.forget()
    assert source.clock.timer is None
    source.read(FLOOD_BYTES, 0.25)
    assert source.done == ["stop", "look", "stop"]


def test_a_flood_of_small_outputs_does_not_rest_and_looks_at_control(source: Source) -> None:
    assert source.read(10, 0.001, has_more=True)
    assert not source.pace.rests
    assert source.read(10, 0.001)
    assert source.done == ["look"]
    assert source.read(10, 0.001), "it is over"
    assert source.done == ["look"]


def test_a_flood_waits_until_control_is_quiet(source: Source) -> None:
    source.read(FLOOD_BYTES, 0.01)
    for _ in range(3):
        source.clock.wake(source.precedence.note)
    assert "go on" not in source.done
    assert source.clock.now_s == pytest.approx(0.02 + 2 * QUIET_S)
    source.clock.wake()
    assert source.done[-1] == "go on"


def test_what_control_says_right_before_a_slice_makes_it_wait(source: Source) -> None:
    source.read(FLOOD_BYTES, 0.01)
    source.clock.wake()
    source.precedence.read = source.precedence.note
    assert not source.read(FLOOD_BYTES, 0.01)
    assert source.pace.rests


def test_a_flood_goes_on_though_control_is_never_quiet(source: Source) -> None:
    source.read(FLOOD_BYTES, 0.01)
    while "go on" not in source.done:
        source.clock.wake(source.precedence.note)
    assert source.clock.now_s == pytest.approx(0.01 + LONGEST_S)
    source.precedence.read = source.precedence.note
    assert source.read(FLOOD_BYTES, 0.01), "it has waited long enough"


def test_without_a_flood_nothing_gives_way(source: Source) -> None:
    source.precedence.note()
    assert source.read(FLOOD_BYTES - 1, 0.01)
    assert source.done == []
