"""The pace of reading: in a flood of outputs, the reader rests after each slice as long as it took.

A worker prints faster than any client reads. Without rests the broker would be busy with that all
the time, and a control request would wait for its turn on the processor; with them it finds the
broker idle every other time, and behind one slice at most (measured in a flood: p50 5 ms without,
1 ms with rests).

Threads: the broker's loop only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

FLOOD_BYTES = 32 << 10
"""So much output in one slice is a flood."""


class Pace:
    """When one source of outputs is read."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[], object],
        go_on: Callable[[], object],
    ) -> None:
        """Pace a source.

        Args:
            loop: the broker's.
            stop: has the source not read any more.
            go_on: has it read again.
        """
        self._loop = loop
        self._stop = stop
        self._go_on = go_on
        self._rest: asyncio.TimerHandle | None = None
        self._began_s = 0.0

    def begin(self) -> None:
        """Note that a slice is read now."""
        self._began_s = self._loop.time()

    def end(self, size_bytes: int) -> None:
        """Rest if so much output in one slice is that of a flood."""
        if size_bytes < FLOOD_BYTES or self._rest is not None:
            return
        self._stop()
        took_s = self._loop.time() - self._began_s
        self._rest = self._loop.call_later(took_s, self._wake)

    def forget(self) -> None:
        """Rest no longer: somebody else says now whether the source is read."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _wake(self) -> None:
        self._rest = None
        self._go_on()
