"""The event loops that a Caller can live in: how to wake one, start a call in it and end it.

Threads: a host belongs to the thread of its loop; only `wake` and a call's `cancel` may be used
from others.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from unstuck.future import CANCELLED, Future

if TYPE_CHECKING:
    import contextvars

    from unstuck.calls import Call
    from unstuck.typing import Backend
    from unstuck.waiting import Resumable


Begin = tuple[Callable[..., Awaitable[Any]], tuple[Any, ...], dict[str, Any]]
"""What a task calls, and then awaits."""


class Owner(Protocol):
    """The part of a Caller's scheduler that its host uses."""

    def drain(self) -> None: ...
    def enter(self, future: Future[Any]) -> None: ...
    def post(self, entry: Resumable) -> bool: ...
    def settle(self, future: Future[Any], state: int, value: object = None) -> None: ...


class Host(Protocol):
    """One running event loop."""

    owner: Owner
    ident: int
    """The loop's thread."""
    fifo: bool
    """Tasks take their first steps in the order in which they were made."""
    unstarted: int
    """Tasks that have not taken their first step."""
    active: dict[Future[Any], Call]
    """The calls that await, and those that wait for their time."""

    @property
    def backend(self) -> Backend: ...

    @property
    def loop(self) -> object:
        """What tells this loop from others: asyncio's loop, trio's token."""
        ...

    def wake(self) -> None:
        """Have the owner drain, from any thread."""

    def defer(self) -> None:
        """Have the owner drain when all tasks have taken their first step."""

    def start(self, future: Future[Any], context: contextvars.Context, function: Begin) -> None:
        """Call and await in a task of its own."""

    def sweep(self) -> None:
        """Settle the calls whose tasks have ended without doing so."""

    def later(self, delay_s: float, function: Callable[[], None], future: Future[Any]) -> None:
        """Call ``function`` after a while, unless the future is cancelled first."""

    async def open(self) -> None:
        """Be ready to start calls."""

    def end_body(self) -> None:
        """Cancel the body of the Caller's ``async with``."""

    async def leave(self, error: BaseException | None) -> bool:
        """End all calls after the body has ended; True when `end_body` caused its error."""
        ...


class TimerCall:
    """A call that waits for its time."""

    __slots__ = ("_cancel_timer", "_future", "_host")

    executing = False

    def __init__(self, host: Host, future: Future[Any], cancel_timer: Callable[[], object]) -> None:
        self._host = host
        self._future = future
        self._cancel_timer = cancel_timer

    def is_current(self) -> bool:
        return False

    def cancel(self) -> bool:
        if threading.get_ident() == self._host.ident:
            self.resume()
            return True
        return self._host.owner.post(self)

    def resume(self) -> None:
        self._cancel_timer()
        if self._host.active.get(self._future) is self:
            del self._host.active[self._future]
            self._host.owner.settle(self._future, CANCELLED)


def itself(awaitable: Awaitable[Any]) -> Awaitable[Any]:
    """Stand for a function that has been called already."""
    return awaitable


def close(value: object) -> None:
    """Drop a coroutine that will not be awaited; leave anything else."""
    if isinstance(value, CoroutineType):
        value.close()


def without_frame(error: BaseException) -> BaseException:
    """Drop our own frame from a traceback, which then begins in the user's code."""
    traceback = error.__traceback__
    return error.with_traceback(traceback.tb_next) if traceback is not None else error
