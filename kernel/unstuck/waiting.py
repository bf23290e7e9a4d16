"""Let a task or a thread wait until any other thread wakes it; no thread is used for that.

Threads: a waiter is made and parked by the task or thread that waits; `wake` may be called from any
thread, any number of times. A wake from another thread goes through the Caller of the waiter's
thread where there is one, so that many wakes at once cost one wake-up of its event loop.
"""

from __future__ import annotations

import sys
import threading
from time import monotonic
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from unstuck.typing import Backend

INTERRUPT_SLICE_S = 0.1
"""How long a thread sleeps in one piece: asynchronous exceptions land between two of them."""


class Resumable(Protocol):
    """What the thread of a Caller is asked to do for a waiter or a cancelled call."""

    def resume(self) -> None:
        """Go on, in the Caller's thread."""


class Poster(Protocol):
    """The part of a Caller that waiters use."""

    def post(self, entry: Resumable) -> bool:
        """Have ``entry.resume()`` called in the Caller's thread; False when that has ended."""
        ...

    def hosts(self, loop: object) -> bool:
        """Say whether the Caller lives in this event loop."""
        ...


class _Here(threading.local):
    """What the current thread has."""

    poster: Poster | None = None


here = _Here()


class TaskWaiter(Protocol):
    """A task that waits."""

    woken: bool

    def wake(self) -> None:
        """Let it go on; from any thread."""
        ...

    async def park(self, timeout_s: float | None) -> bool:
        """Wait until woken; False when the time was up first."""
        ...


class AsyncioWaiter:
    """A waiting asyncio task."""

    __slots__ = ("_event", "_ident", "_loop", "_poster", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.woken = False
        self._loop = loop
        self._event: asyncio.Future[None] = loop.create_future()
        self._ident = threading.get_ident()
        poster = here.poster
        self._poster = poster if poster is not None and poster.hosts(loop) else None

    def wake(self) -> None:
        self.woken = True
        if threading.get_ident() == self._ident:
            self.resume()
        elif self._poster is None or not self._poster.post(self):
            try:
                self._loop.call_soon_threadsafe(self.resume)
            except RuntimeError:
                # The loop is closed, and with it the task that waited.
                return

    def resume(self) -> None:
        if not self._event.done():
            self._event.set_result(None)

    async def park(self, timeout_s: float | None) -> bool:
        if timeout_s is None:
            await self._event
            return True
        timer = self._loop.call_later(timeout_s, self.resume)
        try:
            await self._event
        finally:
            timer.cancel()
        return self.woken


class ThreadWaiter:
    """A waiting thread."""

    __slots__ = ("_gate", "woken")

    def __init__(self) -> None:
        self.woken = False
        self._gate = threading.Semaphore(0)

    def wake(self) -> None:
        self.woken = True
        self._gate.release()

    def park_sync(self, timeout_s: float | None) -> bool:
        """Wait until woken; False when the time was up first. Can be interrupted."""
        until = None if timeout_s is None else monotonic() + timeout_s
        while not self.woken:
            left = (
                INTERRUPT_SLICE_S if until is None else min(INTERRUPT_SLICE_S, until - monotonic())
            )
            if left <= 0:
                return False
            self._gate.acquire(timeout=left)
        return True


def current_backend() -> Backend | None:
    """Name the event loop that the current thread runs in, or None."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return "trio"
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return None
        return "asyncio"
    return None


def new_waiter() -> TaskWaiter:
    """Make a waiter for the current task.

    Raises:
        RuntimeError: no event loop runs in the current thread.
    """
    match current_backend():
        case "asyncio":
            import asyncio  # noqa: PLC0415  (not on the start path)

            return AsyncioWaiter(asyncio.get_running_loop())
        case "trio":
            from unstuck.trio_waiting import TrioWaiter  # noqa: PLC0415  (imports trio)

            return TrioWaiter()
        case None:
            name = threading.current_thread().name
            raise RuntimeError(f"no asyncio or trio event loop runs in the thread {name!r}")
