"""A Caller's life in an asyncio event loop.

Threads: a host belongs to the thread of its loop; only `wake` and a call's `cancel` may be used
from others.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from unstuck.bell import make_bell
from unstuck.future import CANCELLED, ERROR, RESULT, Future
from unstuck.hosts import Begin, Owner, TimerCall, close, itself, without_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.calls import Call
    from unstuck.typing import Backend

END_DEADLINE_S = 10.0
"""How long calls that go on after their cancellation hold up the end."""
CANCEL_AGAIN_S = 0.1
"""At the end a call that goes on after its cancellation is cancelled again, this often."""

SWEEP_S = 0.1
"""After a call begins: when it is looked whether its task ended before it could."""


class AsyncioCall:
    """A call that runs as a task of asyncio."""

    __slots__ = ("_function", "_future", "_host", "started", "task")

    task: asyncio.Task[None]

    def __init__(self, host: AsyncioHost, future: Future[Any], function: Begin) -> None:
        self._host = host
        self._future = future
        self._function = function
        self.started = False

    async def run(self) -> None:
        """Call, await, and settle the future."""
        owner, future = self._host.owner, self._future
        self.started = True
        self._host.unstarted -= 1
        if future.cancelled():
            self._drop()
            return
        owner.enter(future)
        function, args, kwargs = self._function
        try:
            value = await function(*args, **kwargs)
        except asyncio.CancelledError as error:
            owner.settle(future, CANCELLED, error)
        except BaseException as error:  # noqa: BLE001  (it belongs to the future)
            owner.settle(future, ERROR, without_frame(error))
        else:
            owner.settle(future, RESULT, value)

    def _drop(self) -> None:
        function, args, _ = self._function
        if function is itself:
            close(args[0])
        self._host.owner.settle(self._future, CANCELLED)

    def settle(self) -> None:
        """Settle a call whose task has ended without doing so."""
        if not self.started:
            # Somebody cancelled all tasks of the loop in the moment before its first step.
            self.started = True
            self._host.unstarted -= 1
            self._drop()
        elif not self._future.done():
            # An interrupt came after the end of the call, between two lines of ours.
            error = None if self.task.cancelled() else self.task.exception()
            state = CANCELLED if error is None else ERROR
            self._host.owner.settle(self._future, state, error)

    @property
    def executing(self) -> bool:
        coroutine = self.task.get_coro()
        return isinstance(coroutine, CoroutineType) and coroutine.cr_running

    def is_current(self) -> bool:
        if threading.get_ident() != self._host.ident:
            return False
        return asyncio.current_task() is self.task

    def cancel(self) -> bool:
        if threading.get_ident() == self._host.ident:
            self.resume()
            return True
        return self._host.owner.post(self)

    def resume(self) -> None:
        # Cancelled before its first step a task would never run: that step looks by itself.
        if self.started:
            self.task.cancel()


class AsyncioHost:
    """A running asyncio loop."""

    backend: Backend = "asyncio"
    fifo = True

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self.ident = threading.get_ident()
        self.unstarted = 0
        self.active: dict[Future[Any], Call] = {}
        self._context = contextvars.Context()
        self._bell = make_bell()
        self._answering = False
        if self._bell is not None:
            self._context.run(self.loop.add_reader, self._bell.descriptor, self._answer)
        self._sweeping: asyncio.TimerHandle | None = None
        self._body: asyncio.Task[Any] | None = None
        self._ending = False

    def wake(self) -> None:
        bell = self._bell
        # A copy: a nested loop may drain inside of a drain, and a context is entered once.
        if threading.get_ident() == self.ident:
            self.loop.call_soon(self.owner.drain, context=self._context.copy())
        elif bell is None or self._answering or self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.owner.drain, context=self._context.copy())
        else:
            bell.ring()

    def _answer(self) -> None:
        """Drain because the bell was rung."""
        # From here on wakes take the other way: the bell's context is entered now, so its answer
        # could not run in a nested loop. Earlier rings are cleared, and what they said is drained.
        self._answering = True
        try:
            if self._bell is not None:
                self._bell.clear()
            self.owner.drain()
        finally:
            self._answering = False

    def defer(self) -> None:
        """Drain again when the tasks made so far have taken their first steps."""
        self.wake()

    def start(self, future: Future[Any], context: contextvars.Context, function: Begin) -> None:
        call = AsyncioCall(self, future, function)
        self.unstarted += 1
        call.task = self.loop.create_task(call.run(), context=context)
        self.active[future] = call
        future.begin(call)
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(SWEEP_S, self.sweep, context=self._context.copy())

    def sweep(self) -> None:
        """Settle the calls whose tasks have ended without doing so; rare, but it happens."""
        self._sweeping = None
        for call in list(self.active.values()):
            if isinstance(call, AsyncioCall) and call.task.done():
                call.settle()
        if self.unstarted:
            self._sweeping = self.loop.call_later(SWEEP_S, self.sweep, context=self._context.copy())

    def later(self, delay_s: float, function: Callable[[], None], future: Future[Any]) -> None:
        handle = self.loop.call_later(
            delay_s, self._due, future, function, context=self._context.copy()
        )
        call = TimerCall(self, future, handle.cancel)
        self.active[future] = call
        if not future.begin(call):
            call.resume()

    def _due(self, future: Future[Any], function: Callable[[], None]) -> None:
        self.active.pop(future, None)
        function()

    async def open(self) -> None:
        """Take the current task for the body of the ``async with``."""
        self._body = asyncio.current_task()
        self._cancelling = self._body.cancelling() if self._body is not None else 0

    def end_body(self) -> None:
        """Cancel the body, which a later `leave` then tells from a cancellation by others."""
        if self._body is not None and not self._ending:
            self._ending = True
            self._body.cancel()

    async def leave(self, error: BaseException | None) -> bool:
        """End all calls after the body has ended; True when `end_body` caused its error."""
        body, self._body = self._body, None
        ours = False
        if self._ending and body is not None:
            try:
                # One that came when the body was about to end is delivered at the next await.
                await asyncio.sleep(0)
            except asyncio.CancelledError as late:
                error = late
            others = body.uncancel() > self._cancelling
            ours = isinstance(error, asyncio.CancelledError) and not others
        await self._end_calls()
        if self._bell is not None:
            self.loop.remove_reader(self._bell.descriptor)
            self._bell = None
        return ours

    async def _end_calls(self) -> None:
        until = monotonic() + END_DEADLINE_S
        while self.active and monotonic() < until:
            for future in list(self.active):
                future.cancel()
            tasks = [call.task for call in self.active.values() if isinstance(call, AsyncioCall)]
            if tasks:
                await asyncio.wait(tasks, timeout=CANCEL_AGAIN_S)
            self.sweep()
        if self._sweeping is not None:
            self._sweeping.cancel()
