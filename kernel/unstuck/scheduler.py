"""Run calls in the thread of a Caller: a queue that any thread fills, and the loop's thread drains.

Threads: `submit` and `post` from any thread, all else in the Caller's own. A burst of calls wakes
the event loop once. Calls start in the order of submission; a synchronous one ends before the next
one starts.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from unstuck.calls import SYNC_CALL
from unstuck.future import CANCELLED, ERROR, RESULT, Future, current_future
from unstuck.hosts import Host, close, itself, without_frame
from unstuck.waiting import Resumable, here

if TYPE_CHECKING:
    import logging

_NO_CONTEXT = contextvars.Context()

SLICE_S = 0.001
"""Calls that run without awaiting leave the loop to others after this time."""

CO_COROUTINE = 0x80
CO_ITERABLE_COROUTINE = 0x100

Entry = (
    Resumable
    | tuple[
        Future[Any] | None, contextvars.Context, Callable[..., Any], tuple[Any, ...], dict[str, Any]
    ]
)
"""A waiter or a call; a call without a future is a direct one."""


class Scheduler:
    """The queue of one Caller."""

    def __init__(self, name: str, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self.name = name
        self.log = logger
        self.host: Host | None = None
        self.lease: Callable[[], None] | None = None
        """Called when the leased call has ended, before its future is done."""
        self.leased: Future[Any] | None = None
        self.closing = False
        """No call is taken any more; waiters are still woken."""
        self.ended = False
        """Nothing is run any more."""
        self._entries: deque[Entry] = deque()
        self._awake = False
        self._library_var: contextvars.ContextVar[str | None] | None = None

    def submit(
        self,
        future: Future[Any] | None,
        context: contextvars.Context,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Have a call run in the Caller's thread."""
        self._entries.append((future, context, function, args, kwargs))
        if not self._awake:
            self._wake()
        if self.ended:
            self.reject()

    def submit_direct(self, function: Callable[..., Any], *args: object) -> None:
        """Have a function called without future and context."""
        self.submit(None, _NO_CONTEXT, function, args, {})

    def post(self, entry: Resumable) -> bool:
        """Have ``entry.resume()`` called in the Caller's thread; False when that has ended."""
        if self.ended:
            return False
        self._entries.append(entry)
        if not self._awake:
            self._wake()
        return not self.ended

    def hosts(self, loop: object) -> bool:
        """Say whether the Caller lives in this event loop."""
        return self.host is not None and self.host.loop is loop

    @property
    def outstanding(self) -> int:
        """How many calls wait or run."""
        return len(self._entries) + (len(self.host.active) if self.host is not None else 0)

    def attach(self, host: Host) -> None:
        """Begin: run what has been submitted so far and all that follows."""
        self.host = host
        here.poster = self
        self._wake()

    def detach(self) -> None:
        """End: whatever was not run is cancelled."""
        self.ended = True
        if here.poster is self:
            here.poster = None
        self.reject()
        if self.host is not None:
            for future in list(self.host.active):
                future.cancel(f"Caller<{self.name}> has stopped")
                self.settle(future, CANCELLED)

    def reject(self) -> None:
        """Cancel the calls that will not run, and wake the waiters."""
        while self._entries:
            try:
                entry = self._entries.popleft()
            except IndexError:
                # Another thread, which submitted to a Caller that has ended, rejects as well.
                return
            self._reject(entry)

    def _reject(self, entry: Entry) -> None:
        if not isinstance(entry, tuple):
            entry.resume()
        elif entry[0] is not None:
            close(entry[2])
            entry[0].cancel(f"Caller<{self.name}> has stopped")

    def _wake(self) -> None:
        host = self.host
        if host is None:
            return
        try:
            self._awake = True
            host.wake()
        except BaseException as error:
            # An interrupt here must not leave a queue that believes in a wake-up that never comes.
            self._awake = False
            if not isinstance(error, RuntimeError):
                raise
            # The event loop was closed under the Caller.
            self.ended = True

    def wake_again(self) -> None:
        """Go on after an interrupt went through the event loop and may have lost something."""
        if self.host is not None:
            self.host.sweep()
        self._wake()

    def drain(self) -> None:
        """Run the calls that wait, in order, for one slice of time."""
        # Cleared first: what comes from here on wakes again, also while a call runs a nested loop.
        self._awake = False
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None:
            self._library_var = sniffio.current_async_library_cvar
        host = self.host
        entry: Entry | None = None
        if host is None or self.ended:
            return
        try:
            entries = self._entries
            until = monotonic() + SLICE_S
            while entries:
                entry = entries[0]
                if not isinstance(entry, tuple):
                    entries.popleft()
                    entry.resume()
                    continue
                if self.closing:
                    entries.popleft()
                    self._reject(entry)
                    continue
                if host.unstarted and not (host.fifo and _makes_coroutine(entry[2])):
                    # The tasks made before this call have to take their first step before it runs.
                    self._awake = True
                    host.defer()
                    return
                entries.popleft()
                future, context, function, args, kwargs = entry
                if future is None:
                    self._call_direct(function, args, kwargs)
                elif _makes_coroutine(function):
                    host.start(future, context, (function, args, kwargs))
                else:
                    context.run(self._begin, future, context, function, args, kwargs)
                entry = None
                if monotonic() > until:
                    if entries and not self._awake:
                        self._wake()
                    return
        except BaseException as error:  # noqa: BLE001  (it must not reach the loop)
            # An interrupt was meant for a call, but came too late, between two lines of ours.
            self._recover(entry, error)

    def _recover(self, entry: Entry | None, error: BaseException) -> None:
        self.log.warning("caller=%s interrupted outside of a call error=%r", self.name, error)
        if isinstance(entry, tuple):
            if entry[0] is not None:
                self.settle(entry[0], ERROR, error)
        elif entry is not None:
            entry.resume()
        self._wake()

    def _begin(
        self,
        future: Future[Any],
        context: contextvars.Context,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Run a call, inside its context, up to where it awaits."""
        host = self.host
        assert host is not None
        self.enter(future)
        if not future.begin(SYNC_CALL):
            close(function)
            self.settle(future, CANCELLED)
            return
        try:
            result = function(*args, **kwargs) if callable(function) else function
        except BaseException as error:  # noqa: BLE001  (it belongs to the future)
            cancelled = type(error).__name__ in ("CancelledError", "Cancelled")
            self.settle(future, CANCELLED if cancelled else ERROR, without_frame(error))
            return
        if is_awaitable(result) and result is not future:
            host.start(future, context, (itself, (result,), {}))
        else:
            self.settle(future, RESULT, result)

    def enter(self, future: Future[Any]) -> None:
        """Tell the current context, which is the call's, which call and which library it is in."""
        current_future.set(future)
        if self._library_var is not None and self.host is not None:
            self._library_var.set(self.host.backend)

    def _call_direct(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            close(function(*args, **kwargs))
        except BaseException:
            self.log.exception("caller=%s direct call of %r failed", self.name, function)

    def settle(self, future: Future[Any], state: int, value: object = None) -> None:
        """End a call: its thread is free first, then those who wait hear of it."""
        if self.host is not None:
            self.host.active.pop(future, None)
        if future is self.leased:
            self.leased = None
            if self.lease is not None:
                self.lease()
        future.finish(state, value)

    def in_thread(self) -> bool:
        """Say whether this is the Caller's thread."""
        return self.host is not None and threading.get_ident() == self.host.ident


CALL_CODES = frozenset(vars(Scheduler)[name].__code__ for name in ("_begin", "_call_direct"))
"""What runs calls; of one that is no Python function there is no other frame to see."""


def _makes_coroutine(function: Callable[..., Any]) -> bool:
    """Say whether calling this runs none of its code."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & CO_COROUTINE)


def is_awaitable(value: object) -> bool:
    """Say whether ``await value`` works, as `inspect.isawaitable` does, without importing that."""
    kind = type(value)
    if kind is CoroutineType or hasattr(kind, "__await__"):
        return True
    return isinstance(value, GeneratorType) and bool(value.gi_code.co_flags & CO_ITERABLE_COROUTINE)


class DelayedCall:
    """A call on its way to the timers of its Caller's event loop."""

    __slots__ = ("_call", "_due_s", "_future", "_scheduler")

    def __init__(
        self,
        scheduler: Scheduler,
        delay_s: float,
        future: Future[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._scheduler = scheduler
        self._due_s = monotonic() + delay_s
        self._future = future
        self._call = (contextvars.copy_context(), function, args, kwargs)

    def resume(self) -> None:
        """Start the timer, in the Caller's thread; what the way took counts as delay."""
        host = self._scheduler.host
        if self._scheduler.closing or host is None:
            self.submit()
        else:
            host.later(max(0.0, self._due_s - monotonic()), self.submit, self._future)

    def submit(self) -> None:
        """Have it run now."""
        self._scheduler.submit(self._future, *self._call)
