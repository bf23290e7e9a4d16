"""Turns: one request of a kind at a time, and none that waits for ever for one that hangs.

Threads: any may take a turn; `revive` in the main thread of a copy, which is its only one.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

DEADLINE_S = 8.0
"""How long a request may wait for the one before it; below the broker's deadline."""

_all: list[Turns] = []


class Turns:
    """The turns of one kind of requests."""

    def __init__(self, what: str) -> None:
        """Let one ``what`` at a time go on."""
        self._what = what
        self._lock = threading.Lock()
        _all.append(self)

    @contextmanager
    def take(self) -> Generator[None]:
        """Hold the turn.

        Raises:
            TimeoutError: the request before this one does not end.
        """
        lock = self._lock
        if not lock.acquire(timeout=DEADLINE_S):
            # A user's __dir__ that never returns keeps its lock: later requests get a fresh one.
            self.renew()
            raise TimeoutError(f"the {self._what} before this one runs for over {DEADLINE_S} s")
        try:
            yield
        finally:
            lock.release()

    def renew(self) -> None:
        """Wait no longer for whoever has the turn."""
        self._lock = threading.Lock()


def revive() -> None:
    """Forget turns of threads that a fork has not taken along."""
    for turns in _all:
        turns.renew()
