"""Locks for tasks of any event loop in any thread.

Threads: any. The bookkeeping is done under a plain lock that is held for a few instructions only.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar, Self

from unstuck.future import InvalidStateError
from unstuck.waiting import TaskWaiter, new_waiter

if TYPE_CHECKING:
    from types import TracebackType


class Holder:
    """A context that holds a lock, or waits for it; nothing but an identity."""

    __slots__ = ()


class AsyncLock:
    """A mutual exclusion between tasks, also of different threads; first come, first served.

    The context that has acquired it holds it, and with it the calls and tasks that it starts. To
    acquire it again in that context is an error, since it would wait for itself.
    """

    _reentrant: ClassVar[bool] = False

    def __init__(self) -> None:
        self._holder_var: ContextVar[Holder | None] = ContextVar(f"lock-{id(self)}", default=None)
        self._mutex = threading.Lock()
        self._holder: Holder | None = None
        self._count = 0
        self._queue: deque[tuple[Holder, TaskWaiter]] = deque()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({f'🔒{self._count}' if self._count else '🔓'})"

    async def __aenter__(self) -> Self:
        return await self.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.release()

    @property
    def count(self) -> int:
        """How often the context that holds the lock has acquired it."""
        return self._count

    def is_in_context(self) -> bool:
        """Say whether the current context holds the lock."""
        holder = self._holder_var.get()
        return holder is not None and holder is self._holder

    async def acquire(self) -> Self:
        """Wait until nobody else holds the lock, then hold it.

        Raises:
            RuntimeError: the current context holds it already, and it is not reentrant.
        """
        if self.is_in_context() and not self._reentrant:
            raise RuntimeError(f"{self!r} is held by this context already, and is not reentrant")
        before = self._holder_var.get()
        holder = before if self._reentrant and before is not None else Holder()
        self._holder_var.set(holder)
        waiter = self._take(holder)
        if waiter is not None:
            await self._wait(holder, waiter)
        return self

    async def release(self) -> None:
        """Give the lock back; after the last time it goes to whoever has waited longest.

        Raises:
            InvalidStateError: the current context does not hold it.
        """
        if not self.is_in_context():
            raise InvalidStateError(f"{self!r} is not held by this context")
        self._give_back()

    def _take(self, holder: Holder) -> TaskWaiter | None:
        """Hold the lock, or give the waiter that stands in the queue for it."""
        waiter = new_waiter()
        with self._mutex:
            if self._holder is None or self._holder is holder:
                self._holder = holder
                self._count += 1
                return None
            self._queue.append((holder, waiter))
        return waiter

    async def _wait(self, holder: Holder, waiter: TaskWaiter) -> None:
        try:
            await waiter.park(None)
        except BaseException:
            with self._mutex:
                waiting = (holder, waiter) in self._queue
                if waiting:
                    self._queue.remove((holder, waiter))
            if not waiting:
                # It was granted at the moment of the cancellation.
                self._give_back()
            raise

    def _give_back(self) -> None:
        woken: list[TaskWaiter] = []
        with self._mutex:
            self._count -= 1
            if self._count == 0:
                self._holder = None
                if self._queue:
                    self._holder = self._queue[0][0]
                    granted = [entry for entry in self._queue if entry[0] is self._holder]
                    self._queue = deque(e for e in self._queue if e[0] is not self._holder)
                    self._count = len(granted)
                    woken = [waiter for _, waiter in granted]
        for waiter in woken:
            waiter.wake()


class ReentrantAsyncLock(AsyncLock):
    """An `AsyncLock` that its context, and the calls started there, may acquire again.

    They release it as often; the order is free.
    """

    _reentrant: ClassVar[bool] = True
