"""Signals that the main thread does not see: each is sent again until its handler runs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from unstuck_worker.signals import Signals, leave
from unstuck_worker.wakeups import PAUSES_S, Wakeups

if TYPE_CHECKING:
    from collections.abc import Iterator


class Watched:
    """Wakeups in this process, whose handler of SIGINT runs but leaves the bytes to the test."""

    def __init__(self) -> None:
        self.woken = 0
        self.takes_when_woken = False
        self.wakeups = Wakeups(Signals(self.handle), self.wake)

    def handle(self, *_: object) -> None:
        """Be the handler of a main thread that does not come to run it."""

    def wake(self) -> None:
        self.woken += 1
        if self.takes_when_woken:
            self.wakeups.take()


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    before = signal.getsignal(signal.SIGINT)
    watched.wakeups.install()
    yield watched
    leave()
    signal.signal(signal.SIGINT, before)
    watched.wakeups.close()


def test_a_signal_is_looked_after_for_a_while(watched: Watched) -> None:
    signal.raise_signal(signal.SIGINT)
    assert [watched.wakeups.check() for _ in PAUSES_S] == list(PAUSES_S)
    assert watched.wakeups.check() is None
    assert watched.wakeups.check() is None


def test_a_signal_whose_handler_has_run_is_over(watched: Watched) -> None:
    signal.raise_signal(signal.SIGINT)
    assert watched.wakeups.check() == PAUSES_S[0]
    watched.wakeups.take()
    assert watched.wakeups.check() is None


def test_each_of_many_signals_is_looked_after_as_long_as_the_first(watched: Watched) -> None:
    for _ in range(10):
        signal.raise_signal(signal.SIGINT)
        assert watched.wakeups.check() == PAUSES_S[0]
        watched.wakeups.take()
    assert watched.wakeups.check() is None


def test_bytes_that_the_handler_takes_at_the_last_moment_are_missed_by_nobody(
    watched: Watched,
) -> None:
    watched.takes_when_woken = True
    before = signal.signal(signal.SIGINT, lambda *_: None)
    signal.raise_signal(signal.SIGINT)
    assert watched.wakeups.check() is None
    assert watched.woken == 1
    signal.signal(signal.SIGINT, before)
