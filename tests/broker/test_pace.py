"""The rests of a reader in a flood of outputs, with a loop whose time is a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from unstuck_broker.pace import FLOOD_BYTES, Pace

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Timer:
    """What `Clock.call_later` gives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def cancel(self) -> None:
        self._clock.timer = None


class Clock:
    """Stands where the loop stands."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timer: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        assert self.timer is None
        self.timer = (self.now_s + delay_s, call)
        return Timer(self)

    def wake(self) -> None:
        assert self.timer is not None
        (self.now_s, call), self.timer = self.timer, None
        call()


class Source:
    """A source of outputs: says what was done to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.done: list[str] = []
        loop = cast("asyncio.AbstractEventLoop", self.clock)
        stop, go_on = (lambda word=word: self.done.append(word) for word in ("stop", "go on"))
        self.pace = Pace(loop, stop, go_on)

    def read(self, size_bytes: int, took_s: float) -> None:
        self.pace.begin()
        self.clock.now_s += took_s
        self.pace.end(size_bytes)


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
    assert source.done == ["stop"]


def test_a_rest_that_is_forgotten_starts_nothing(source: Source) -> None:
    source.read(FLOOD_BYTES, 0.25)
    source.pace.forget()
    assert source.clock.timer is None
    source.read(FLOOD_BYTES, 0.25)
    assert source.done == ["stop", "stop"]
