"""Tell how far something is, when it takes longer than a second, and as often as one can read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET_S = 1.0
STEP_S = 0.1


class Telling:
    """Hands on what is told, from a second after its making on."""

    def __init__(self, tell: Callable[[int, int, str], None]) -> None:
        """Hand on to ``tell``: done, total, and the name of what is next."""
        self._tell = tell
        self._next_s = time.monotonic() + QUIET_S

    def __call__(self, done: int, total: int, name: str) -> None:
        """Tell, or leave it."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + STEP_S
            self._tell(done, total, name)


class Forward(Telling):
    """Two steps that run at the same time, told as one that only goes forward."""

    def __init__(self, tell: Callable[[int, int, str], None]) -> None:
        """Hand on to ``tell``."""
        super().__init__(tell)
        self._done = 0

    @override
    def __call__(self, done: int, total: int, name: str) -> None:
        """Tell, or leave it."""
        if done > self._done:
            self._done = done
            super().__call__(done, total, name)
