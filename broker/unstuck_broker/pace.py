"""The pace of reading: in a flood of outputs, the reader rests after each slice as long as it took.

A worker prints faster than any client reads. Without rests the broker would be busy with that all
the time, and a control request would wait for its turn on the processor; with them it finds the
broker idle every other time, and behind one slice at most (measured in a flood: p50 5 ms without,
1 ms with rests).

While somebody asks on control, a flood gives way: the next slice waits until control is quiet, for
at most `LONGEST_S`. On two cores the client would else get no processor before the slice is through
(measured: p99 1.0 ms without, 0.45 ms with it).

Threads: the broker's loop only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

FLOOD_BYTES = 32 << 10
"""So much output in one slice is a flood."""
QUIET_S = 0.0005
"""A client that has its answer may ask again within this."""
LONGEST_S = 0.1
"""A flood goes on after this though control is never quiet."""


class Precedence:
    """Control goes before a flood."""

    def __init__(self, loop: asyncio.AbstractEventLoop, read: Callable[[], object]) -> None:
        """Know nothing of control yet; ``read`` takes what waits there."""
        self._loop = loop
        self._used_s = float("-inf")
        self.read = read

    def note(self) -> None:
        """Note that somebody asks on control now."""
        self._used_s = self._loop.time()

    def left_s(self, since_s: float) -> float:
        """Say how long a flood gives way from now on that waits since ``since_s``."""
        return min(self._used_s + QUIET_S, since_s + LONGEST_S) - self._loop.time()


class Pace:
    """When one source of outputs is read."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[], object],
        go_on: Callable[[], object],
        precedence: Precedence,
    ) -> None:
        """Pace a source.

        Args:
            loop: the broker's.
            stop: has the source not read any more.
            go_on: has it read again.
            precedence: what goes before it.
        """
        self._loop = loop
        self._stop = stop
        self._go_on = go_on
        self._precedence = precedence
        self._rest: asyncio.TimerHandle | None = None
        self._began_s = 0.0
        self._flood_s: float | None = None
        """Since when the next slice of a flood waits."""

    @property
    def rests(self) -> bool:
        """Tell whether the source is not read at this moment."""
        return self._rest is not None

    def begin(self) -> bool:
        """Say whether a slice may be read now; else the source rests again.

        In a flood control is read first: where both are ready the loop has no order.
        """
        if self._flood_s is not None:
            self._precedence.read()
            if self._gives_way(self._flood_s):
                return False
        self._flood_s = None
        self._began_s = self._loop.time()
        return True

    def end(self, size_bytes: int, *, has_more: bool = False) -> None:
        """Rest if this slice is one of a flood of text.

        Args:
            size_bytes: of the outputs in it.
            has_more: it was cut short: a flood of small ones, which gives way and does not rest.
        """
        is_flood = size_bytes >= FLOOD_BYTES
        if self.rests or not (is_flood or has_more):
            return
        self._flood_s = self._loop.time()
        if is_flood:
            self._stop()
            took_s = self._flood_s - self._began_s
            self._rest = self._loop.call_later(took_s, self._wake, self._flood_s)

    def forget(self) -> None:
        """Rest no longer: somebody else says now whether the source is read."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _wake(self, since_s: float) -> None:
        self._rest = None
        if not self._gives_way(since_s):
            self._go_on()

    def _gives_way(self, since_s: float) -> bool:
        left_s = self._precedence.left_s(since_s)
        if left_s > 0:
            self._stop()
            self._rest = self._loop.call_later(left_s, self._wake, since_s)
        return left_s > 0
