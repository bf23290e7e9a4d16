"""The future of a call: awaitable from any task and thread, whichever event loop runs there.

Threads: every method may be called from any thread. No lock is taken, so that neither an
asynchronous exception nor a fork can leave one locked: what must happen once rests on
single steps of the interpreter (deleting a slot, popping from a list).
"""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast, overload

from unstuck.calls import DoneCallback, ScopeCall, find_caller
from unstuck.seconds import check_timeout
from unstuck.waits import wait_in_task, wait_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    import anyio
    import trio

    from unstuck.caller import Caller
    from unstuck.calls import Call, Entry
    from unstuck.cancelled import FutureCancelledError

T = TypeVar("T")

PENDING, RESULT, ERROR, CANCELLED = range(4)
"""The states of a future; it leaves the first one once."""

log = logging.getLogger("unstuck")


class InvalidStateError(RuntimeError):
    """The future is not in a state that allows this."""


current_future: ContextVar[Future[Any] | None] = ContextVar("unstuck_future", default=None)
"""The future of the call that the running code belongs to."""


class Future(Generic[T]):
    """A result that will be there later.

    A future belongs to a thread (by default the one that makes it): its done callbacks run there.
    It can be awaited in any thread and under either event loop; waiting uses no thread.

    **Cancellation, the one rule:** who stops waiting early (its task is cancelled, its timeout is
    up, its thread is interrupted) cancels the future only if nobody else waits for it and it did
    not wait with ``shield=True``. Those who wait are: other `wait` and `wait_sync`, `Caller.wait`,
    `Caller.as_completed`, and done callbacks. `cancel` itself always cancels. A call that is
    cancelled while it awaits gets its backend's cancellation raised where it awaits, and the future
    is done when the call has ended; one that has not started never starts; one that runs without
    awaiting runs to its end, but its result is dropped.
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_cancel_message",
        "_entries",
        "_open",
        "_state",
        "_traceback",
        "_value",
        "is_call",
        "thread",
        "waits_for",
    )

    thread: threading.Thread
    """The thread that the future belongs to."""
    waits_for: Collection[Future[Any]]
    """What the call of this future awaits now, any one of these; a deadlock is a ring of them."""

    is_call: bool
    """A Caller runs something for it: it cannot be done while its thread is blocked."""

    def __init__(self, thread: threading.Thread | None = None, *, is_call: bool = False) -> None:
        self.thread = threading.current_thread() if thread is None else thread
        self.is_call = is_call
        self._entries: list[Entry | DoneCallback] = []
        self._open = True
        self._state = PENDING
        self._value: Any = None
        self._cancel_message: str | None = None
        self._call: Call | None = None
        self.waits_for = ()

    def __repr__(self) -> str:
        if self._state == PENDING:
            state = "cancelling" if self._cancel_message is not None else "pending"
        else:
            state = ("pending", "result", "error", "cancelled")[self._state]
        return f"Future<{self.thread.name} {state}>"

    def __await__(self) -> Generator[Any, None, T]:
        if self._state == PENDING:
            yield from wait_in_task(self, current_future.get(), None, shield=False).__await__()
        return self.result()

    @overload
    async def wait(
        self, *, timeout: float | None = ..., shield: bool = ..., result: Literal[True] = ...
    ) -> T: ...

    @overload
    async def wait(
        self, *, timeout: float | None = ..., shield: bool = ..., result: Literal[False]
    ) -> None: ...

    async def wait(
        self, *, timeout: float | None = None, shield: bool = False, result: bool = True
    ) -> T | None:
        """Wait until the future is done, in any thread with an event loop.

        Args:
            timeout: seconds; None waits for as long as it takes.
            shield: leave the future alone when this wait ends early (the class has the rule).
            result: return the result, or raise the error; otherwise return None.

        Raises:
            TimeoutError: the time was up first.
            DeadlockError: the future waits, directly or through others, for the call that waits
                here.
        """
        timeout_s = check_timeout(timeout, self)
        if self._state == PENDING:
            await wait_in_task(self, current_future.get(), timeout_s, shield=shield)
        return self.result() if result else None

    @overload
    def wait_sync(
        self, *, timeout: float | None = ..., shield: bool = ..., result: Literal[True] = ...
    ) -> T: ...

    @overload
    def wait_sync(
        self, *, timeout: float | None = ..., shield: bool = ..., result: Literal[False]
    ) -> None: ...

    def wait_sync(
        self, *, timeout: float | None = None, shield: bool = False, result: bool = True
    ) -> T | None:
        """Block the current thread until the future is done; the arguments are those of `wait`.

        Raises:
            TimeoutError: the time was up first.
            DeadlockError: the future belongs to this thread or to the main thread, or waits for
                this one.
        """
        wait_in_thread(self, check_timeout(timeout, self), shield=shield)
        return self.result() if result else None

    def set_result(self, value: T) -> None:
        """Set the result; a cancelled future ignores it.

        Raises:
            InvalidStateError: it has an outcome already.
            RuntimeError: this is not the future's thread, and that one has no Caller.
        """
        self._set(RESULT, value)

    def set_exception(self, exception: BaseException) -> None:
        """Set the error that `result` raises; else as `set_result`."""
        self._set(ERROR, exception)

    def _set(self, state: int, value: object) -> None:
        if threading.current_thread() is not self.thread:
            self.get_caller()
        if not self.finish(state, value) and self._state != CANCELLED:
            raise InvalidStateError(f"{self!r} has an outcome already")

    def done(self) -> bool:
        """Say whether there is a result, an error or, after a cancellation, an end."""
        return self._state != PENDING

    def cancelled(self) -> bool:
        """Say whether the future has been cancelled; what ran for it may still be ending."""
        return (
            self._cancel_message is not None if self._state == PENDING else self._state == CANCELLED
        )

    def cancel(self, msg: str | None = None) -> bool:
        """Cancel the future and what runs for it, from any thread.

        Args:
            msg: the message of the FutureCancelledError; those of several calls are joined by
                newlines.

        Returns:
            whether it is cancelled; False when it had an outcome before.
        """
        if self._state in (PENDING, CANCELLED):
            parts = [part for part in (self._cancel_message, msg) if part]
            self._cancel_message = "\n".join(parts)
        if self._state == PENDING:
            # A call that begins sets _call, then looks at the message: one sees the other.
            call = self._call
            if call is None or not call.cancel():
                self.finish(CANCELLED)
        return self.cancelled()

    def result(self) -> T:
        """Give the result, or raise the error.

        Raises:
            InvalidStateError: it is not done.
            FutureCancelledError: it is cancelled.
        """
        if self._state == RESULT:
            return cast("T", self._value)
        if (error := self.exception()) is not None:
            raise error.with_traceback(self._traceback)
        return cast("T", self._value)

    def exception(self) -> BaseException | None:
        """Give the error that was set, or None; raises what `result` raises besides that."""
        if self.cancelled():
            cause = self._value
            raise self._make_cancelled_error() from (
                cause if isinstance(cause, BaseException) else None
            )
        if self._state == PENDING:
            raise InvalidStateError(f"{self!r} is not done")
        return self._value if self._state == ERROR else None

    def add_done_callback(self, fn: Callable[[Self], object]) -> None:
        """Have ``fn(future)`` called in the future's thread when it is done, the last added first.

        A callback of a future that is done already is called soon. Its errors are logged.
        """
        if self._state != PENDING:
            self.get_caller().call_direct(fn, self)
            return
        self.add_entry(DoneCallback(fn))

    def remove_done_callback(self, fn: Callable[[Self], object], /) -> int:
        """Remove a callback, as often as it was added; gives how often that was."""
        found = [
            entry
            for entry in tuple(self._entries)
            if isinstance(entry, DoneCallback) and entry.function == fn
        ]
        return sum(map(self.remove_entry, found))

    def set_cancel_scope(self, scope: anyio.CancelScope | trio.CancelScope) -> None:
        """Name the scope that `cancel` is to cancel, for a future that user code fulfils.

        Raises:
            InvalidStateError: it is cancelled or done, or something runs for it already.
        """
        if self._call is not None or self.cancelled() or self.done():
            raise InvalidStateError(f"{self!r} cannot have a (second) cancel scope")
        self._call = ScopeCall(self.thread, scope)

    def get_caller(self) -> Caller:
        """Give the Caller of the future's thread.

        Raises:
            RuntimeError: it has none.
        """
        from unstuck.caller import Caller  # noqa: PLC0415  (caller imports this module)

        return Caller(thread=self.thread)

    @property
    def ident(self) -> int | None:
        """The identifier of the future's thread."""
        return self.thread.ident

    @property
    def executing(self) -> bool:
        """Whether the call's code runs at this moment: an interrupt has to be raised in its thread.

        When this is False and the future is not done, the call awaits or has not started: `cancel`
        ends it.
        """
        call = self._call
        return call is not None and self._state == PENDING and call.executing

    # What follows is for the Caller, not for users.

    def begin(self, call: Call) -> bool:
        """Say what runs for the future from now on; False when it has been cancelled."""
        self._call = call
        return self._cancel_message is None and self._state == PENDING

    def finish(self, state: int, value: object = None) -> bool:
        """Settle the future; False when it is settled already. A cancelled one stays cancelled."""
        try:
            # Deleting is one step of the interpreter: the second one to try gets the
            # AttributeError.
            del self._open
        except AttributeError:
            return False
        self._value = value
        if state == ERROR:
            self._traceback = cast("BaseException", value).__traceback__
        elif state == CANCELLED and self._cancel_message is None:
            self._cancel_message = ""
        self._state = state if self._cancel_message is None else CANCELLED
        self._call = None
        if self._entries:
            self.release()
        return True

    def release(self) -> None:
        """Tell all who wait that the future is done; each hears it once."""
        entries = self._entries
        while entries:
            try:
                entry = entries.pop()
            except IndexError:
                # Another thread, which came to wait at this moment, took the last one.
                return
            if isinstance(entry, DoneCallback):
                self._call_back(entry.function)
                continue
            try:
                entry.wake()
            except BaseException:
                # An interrupt landed here. Waking twice does no harm, not waking at all would.
                entries.append(entry)
                self.release()
                raise

    def add_entry(self, entry: Entry | DoneCallback) -> None:
        """Have ``entry.wake()`` called when the future is done, from any thread; now if it is."""
        self._entries.append(entry)
        if self._state != PENDING:
            # It was settled in between, perhaps before the append: whoever pops the entry, wakes
            # it.
            self.release()

    def remove_entry(self, entry: Entry | DoneCallback) -> bool:
        """Forget an entry; False when it is no longer there."""
        try:
            self._entries.remove(entry)
        except ValueError:
            return False
        return True

    def is_running_here(self) -> bool:
        """Say whether the current task is the one that runs this future's call."""
        call = self._call
        return call is not None and call.is_current()

    def leave(
        self, entry: Entry, *, shield: bool, message: str = "Cancelled with waiter cancellation."
    ) -> None:
        """Stop waiting before the end: the last one to do so cancels (the class has the rule)."""
        self.remove_entry(entry)
        if not shield and not self._entries:
            self.cancel(message)

    def _call_back(self, function: Callable[[Self], object]) -> None:
        if threading.current_thread() is not self.thread:
            caller = find_caller(self.thread)
            if caller is not None and caller.post_direct(function, self):
                return
            # That thread's Caller is gone: a callback is called late and elsewhere rather than
            # never.
        try:
            function(self)
        except BaseException:
            log.exception("callback=%r future=%r failed", function, self)

    def _make_cancelled_error(self) -> FutureCancelledError:
        from unstuck.cancelled import FutureCancelledError  # noqa: PLC0415  (needs anyio)

        message = self._cancel_message
        return FutureCancelledError(message) if message else FutureCancelledError()
