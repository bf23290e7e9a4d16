"""The idle threads that `Caller.to_thread` takes its Callers from.

Threads: any. A Caller is in the pool or leased to one call, never both: taking one is a single pop.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from unstuck.future import Future

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.caller import Caller
    from unstuck.typing import Backend


class ThreadPool:
    """Idle Callers by backend."""

    def __init__(self) -> None:
        self._idle: dict[Backend, deque[Caller]] = {"asyncio": deque(), "trio": deque()}

    def take(self, backend: Backend) -> Caller | None:
        """Give an idle Caller of this backend; the one used last is the quickest to wake."""
        idle = self._idle[backend]
        while idle:
            try:
                caller = idle.pop()
            except IndexError:
                return None
            if caller.running:
                return caller
        return None

    def call(
        self,
        caller: Caller,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[Any]:
        """Run a call in a Caller that comes (back) to the pool when the call has ended."""
        future: Future[Any] = Future(caller.thread, is_call=True)
        scheduler = caller.scheduler
        scheduler.lease = partial(self._give_back, caller)
        scheduler.leased = future
        scheduler.submit(future, copy_context(), func, args, kwargs)
        return future

    def discard(self, caller: Caller) -> None:
        """Forget a Caller that stops."""
        for idle in self._idle.values():
            try:
                idle.remove(caller)
            except ValueError:
                continue

    def _give_back(self, caller: Caller) -> None:
        idle = self._idle[caller.backend]
        if not caller.running:
            return
        if len(idle) < caller.MAX_IDLE_POOL_INSTANCES or caller.scheduler.outstanding:
            idle.append(caller)
        else:
            caller.stop(force=True)


pool = ThreadPool()
