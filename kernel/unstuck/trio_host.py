"""A Caller's life in a trio run.

Threads: a host belongs to the thread of its run; only `wake` and a call's `cancel` may be used from
others.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import trio

from unstuck.future import CANCELLED, ERROR, RESULT, Future
from unstuck.hosts import Begin, Owner, TimerCall, close, itself, without_frame

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    from unstuck.calls import Call
    from unstuck.typing import Backend


class TrioCall:
    """A call that runs as a task of trio."""

    __slots__ = ("_host", "scope", "task")

    def __init__(self, host: TrioHost) -> None:
        self._host = host
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None

    @property
    def executing(self) -> bool:
        return self.task is not None and self.task.coro.cr_running

    def is_current(self) -> bool:
        if threading.get_ident() != self._host.ident or not trio.lowlevel.in_trio_task():
            return False
        return trio.lowlevel.current_task() is self.task

    def cancel(self) -> bool:
        if threading.get_ident() == self._host.ident:
            self.resume()
            return True
        return self._host.owner.post(self)

    def resume(self) -> None:
        self.scope.cancel()


class TrioHost:
    """A trio run."""

    backend: Backend = "trio"
    # Trio shuffles the tasks that can run, so a call has to start before the next one is looked at.
    fifo = False

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.loop = trio.lowlevel.current_trio_token()
        self.ident = threading.get_ident()
        self.unstarted = 0
        self.active: dict[Future[Any], Call] = {}
        self._nursery_manager = trio.open_nursery()
        self._deferred = False
        self._ending = False

    async def open(self) -> None:
        """Open the nursery in which the calls run."""
        self._nursery = await self._nursery_manager.__aenter__()

    def wake(self) -> None:
        self.loop.run_sync_soon(self.owner.drain)

    def defer(self) -> None:
        """Drain again when the task made last takes its first step."""
        self._deferred = True

    def start(self, future: Future[Any], context: contextvars.Context, function: Begin) -> None:
        call = TrioCall(self)
        self.unstarted += 1
        self.active[future] = call
        future.begin(call)
        # The context may be entered at this moment, and the nursery copies the current one anyway.
        context.copy().run(self._nursery.start_soon, self._run, call, future, function)

    async def _run(self, call: TrioCall, future: Future[Any], function: Begin) -> None:
        try:
            self._step(call)
            if future.cancelled():
                if function[0] is itself:
                    close(function[1][0])
                self.owner.settle(future, CANCELLED)
                return
            self.owner.enter(future)
            with call.scope:
                await self._await(future, function)
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001  (it would end the nursery)
            # An interrupt came between the end of the call and its settlement.
            self.owner.settle(future, ERROR, error)
        finally:
            self.active.pop(future, None)

    async def _await(self, future: Future[Any], begin: Begin) -> None:
        function, args, kwargs = begin
        try:
            value = await function(*args, **kwargs)
        except trio.Cancelled as error:
            self.owner.settle(future, CANCELLED, error)
            raise
        except BaseException as error:  # noqa: BLE001  (it belongs to the future)
            self.owner.settle(future, ERROR, without_frame(error))
        else:
            self.owner.settle(future, RESULT, value)

    def sweep(self) -> None:
        """Do nothing: a task settles its call whatever happens to it."""

    def _step(self, call: TrioCall) -> None:
        call.task = trio.lowlevel.current_task()
        self.unstarted -= 1
        if self._deferred:
            self._deferred = False
            self.wake()

    def later(self, delay_s: float, function: Callable[[], None], future: Future[Any]) -> None:
        scope = trio.CancelScope()
        call = TimerCall(self, future, scope.cancel)
        self.active[future] = call
        if future.begin(call):
            self._nursery.start_soon(self._sleep, delay_s, function, future, scope)
        else:
            call.resume()

    async def _sleep(
        self,
        delay_s: float,
        function: Callable[[], None],
        future: Future[Any],
        scope: trio.CancelScope,
    ) -> None:
        with scope:
            await trio.sleep(delay_s)
            self.active.pop(future, None)
            function()

    def end_body(self) -> None:
        """Cancel the body and all calls."""
        self._ending = True
        self._nursery.cancel_scope.cancel()

    async def leave(self, error: BaseException | None) -> bool:
        """End all calls after the body has ended; True when `end_body` caused its error."""
        for future in list(self.active):
            future.cancel()
        self._nursery.cancel_scope.cancel()
        if self._ending and isinstance(error, trio.Cancelled):
            return bool(
                await self._nursery_manager.__aexit__(type(error), error, error.__traceback__)
            )
        # Given to the nursery, an error of the body would come back inside of an exception group.
        await self._nursery_manager.__aexit__(None, None, None)
        return False
