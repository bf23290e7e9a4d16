"""Queues of calls, one for each function: its calls run one by one, each in its own context.

Threads: `QueueMap.put` and `close` from any thread; calls begin and end in the Caller's own.
"""

from __future__ import annotations

import contextvars
import weakref
from collections import deque
from types import MethodType
from typing import TYPE_CHECKING, Any

from unstuck.future import RESULT, Future
from unstuck.waiting import TaskWaiter, new_waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from unstuck.caller import Caller


class QueuedCall:
    """One call that waits in a queue."""

    __slots__ = ("admitted", "args", "context", "function", "kwargs", "waiter")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.context = contextvars.copy_context()
        self.admitted = False
        """It is within the queue's limit, or has begun."""
        self.waiter: TaskWaiter | None = None


class CallQueue:
    """The calls of one function that wait for their turn."""

    def __init__(self, caller: Caller, name: str, limit: float) -> None:
        self.closed: Future[None] = Future(caller.thread)
        """Done when the queue is closed."""
        self._caller = caller
        self._name = name
        self._limit = limit
        self._calls: deque[QueuedCall] = deque()
        self._running: Future[Any] | None = None

    def put(self, call: QueuedCall) -> None:
        """Add a call.

        Raises:
            anyio.WouldBlock: as many wait as the queue takes.
        """
        if len(self._calls) >= max(self._limit, 1):
            from anyio import WouldBlock  # noqa: PLC0415  (not on the start path)

            raise WouldBlock(
                f"{self._caller!r}: {len(self._calls)} calls of {self._name} wait already"
                " (max_buffer_size): use wait=True"
            )
        self._calls.append(call)
        self._caller.scheduler.submit_direct(self._begin)

    async def put_and_wait(self, call: QueuedCall) -> None:
        """Add a call and wait until it is within the limit; a cancellation withdraws it."""
        call.waiter = new_waiter()
        self._calls.append(call)
        self._caller.scheduler.submit_direct(self._begin)
        if len(self._calls) <= self._limit:
            return
        try:
            await call.waiter.park(None)
        except BaseException:
            if call in self._calls:
                self._calls.remove(call)
            raise
        if not call.admitted:
            from unstuck.cancelled import CallerStoppedError  # noqa: PLC0415  (needs anyio)

            raise CallerStoppedError(f"{self._caller!r}: the queue of {self._name} was closed")

    def close(self) -> None:
        """Drop what waits; the call that runs goes on."""
        while self._calls:
            call = self._calls.popleft()
            if call.waiter is not None:
                call.waiter.wake()
        self.closed.finish(RESULT)

    def _begin(self) -> None:
        """Start the next call, unless one runs."""
        if self._running is not None or not self._calls:
            return
        call = self._calls.popleft()
        self._admit(call)
        self._running = Future(self._caller.thread, is_call=True)
        self._running.add_entry(self)
        self._caller.scheduler.submit(
            self._running, call.context, call.function, call.args, call.kwargs
        )

    def wake(self) -> None:
        """Hear that the call has ended."""
        ended, self._running = self._running, None
        if ended is not None and not ended.cancelled():
            error = ended.exception()
            if error is not None:
                self._caller.log.error(
                    "caller=%s queued call of %s failed",
                    self._caller.thread.name,
                    self._name,
                    exc_info=error,
                )
        self._begin()

    def _admit(self, started: QueuedCall) -> None:
        """Let go on who waited for room: the call that starts, and the one within the limit now."""
        within = int(min(self._limit, len(self._calls))) - 1
        admitted = [started] if within < 0 else [started, self._calls[within]]
        for call in admitted:
            call.admitted = True
            if call.waiter is not None:
                call.waiter.wake()


class QueueMap:
    """The queues of one Caller; each ends with its function, or the object of its method."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._queues: dict[Hashable, CallQueue] = {}

    def get(self, function: Callable[..., Any]) -> CallQueue | None:
        """Give the queue of a function, if there is one."""
        return self._queues.get(_key(function, None))

    def get_or_make(self, function: Callable[..., Any], limit: float) -> CallQueue:
        """Give the queue of a function; a new one takes ``limit`` waiting calls."""
        queue = self.get(function)
        if queue is None:
            name = getattr(function, "__qualname__", repr(function))
            made = CallQueue(self._caller, name, limit)
            # Two threads may make one at the same time: the dictionary keeps the first.
            queue = self._queues.setdefault(_key(function, self._drop), made)
        return queue

    def close(self, function: Callable[..., Any]) -> None:
        """Close the queue of a function, if there is one."""
        self._drop(_key(function, None))

    def close_all(self) -> None:
        """Close all queues."""
        for key in tuple(self._queues):
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        queue = self._queues.pop(key, None)
        if queue is not None:
            queue.close()


def _key(function: Callable[..., Any], on_end: Callable[[Hashable], None] | None) -> Hashable:
    """Give a key, equal for the same function; ``on_end`` hears when that is collected."""
    if isinstance(function, MethodType):
        return weakref.WeakMethod(function, on_end)
    if getattr(function, "__self__", None) is not None:
        # A method of a built-in type: the object made by each access would be collected at once.
        return function
    try:
        return weakref.ref(function, on_end)
    except TypeError:
        return function
