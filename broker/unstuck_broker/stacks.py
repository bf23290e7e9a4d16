"""The Python stacks of a worker, taken from outside: faulthandler needs no GIL to write them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_QUIET_S = 0.03
_DEADLINE_S = 0.25
_MAX_BYTES = 256 << 10

TakeStacks = Callable[[str, tuple[int, ...]], None]


class Stacks:
    """Reads the pipe of faulthandler; a dump has no end mark, so it ends when it is quiet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, take: TakeStacks) -> None:
        """Read ``fd``; ``take`` gets each dump with the numbers of the orders that it answers."""
        self._loop = loop
        self._fd = fd
        self._take = take
        self._dump = bytearray()
        self._orders: list[int] = []
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def order(self, number: int) -> bool:
        """Expect a dump for an order; True when the worker has to be asked for one now."""
        self._orders.append(number)
        if self._timer is not None:
            return False
        self.read()
        self._dump.clear()
        self._deadline_s = self._loop.time() + _DEADLINE_S
        self._timer = self._loop.call_later(_QUIET_S, self._look, 0)
        return True

    def read(self) -> str:
        """Take what is there now: at a death, the stack of the fatal signal."""
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except OSError:
                break
            if not data:
                break
            self._dump += data
            del self._dump[_MAX_BYTES:]
        return self._dump.decode("utf-8", "replace").strip()

    def finish(self) -> None:
        """Answer open orders with what there is; the worker is dead or does not react."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            orders, self._orders = tuple(self._orders), []
            self._take(self.read() or "(the worker gave no stack: it is stopped or dead)", orders)
            self._dump.clear()

    def _look(self, seen: int) -> None:
        self.read()
        size = len(self._dump)
        quiet = size > 0 and size == seen
        if quiet or self._loop.time() >= self._deadline_s:
            self.finish()
        else:
            self._timer = self._loop.call_later(_QUIET_S, self._look, size)
