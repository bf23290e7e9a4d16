"""Call functions in other threads, each with an event loop: the `Caller`.

Threads: a Caller belongs to one thread and is used from any.
"""

from __future__ import annotations

import contextvars
import importlib
import logging
import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar, cast, overload

from unstuck.callerthread import check_backend
from unstuck.callqueue import QueuedCall, QueueMap
from unstuck.completion import ReturnWhen, as_completed, wait
from unstuck.deadlock import DeadlockError
from unstuck.eitherway import GetMethod, ToThreadMethod, stopped_error
from unstuck.future import Future, InvalidStateError, current_future
from unstuck.lifespan import STOP_DEADLINE_S, Lifespan
from unstuck.registry import registry
from unstuck.scheduler import DelayedCall, Scheduler, is_awaitable
from unstuck.seconds import check_number, check_seconds
from unstuck.threadpool import pool
from unstuck.typing import NO_VALUE, Backend, NoValue
from unstuck.waiting import current_backend

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
    )
    from types import TracebackType

    from unstuck.cancelled import FutureCancelledError
    from unstuck.locks import AsyncLock, ReentrantAsyncLock

__all__ = [
    "AsyncLock",
    "Caller",
    "DeadlockError",
    "Future",
    "FutureCancelledError",
    "InvalidStateError",
    "ReentrantAsyncLock",
]

P = ParamSpec("P")
T = TypeVar("T")


_LAZY = {
    "AsyncLock": "unstuck.locks",
    "FutureCancelledError": "unstuck.cancelled",
    "ReentrantAsyncLock": "unstuck.locks",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Caller:
    """Run calls in one thread, which has an event loop of asyncio or trio.

    A thread has at most one Caller. ``Caller()`` gives the one of the current thread; ``async with
    Caller(create=True)`` makes one in a loop that runs already, `start_new` starts a thread with a
    loop of its own.

    Calls start in the order in which they were submitted by one thread; a synchronous one ends
    before the next one starts. A call runs in a copy of the context of its submission. Whatever it
    raises, KeyboardInterrupt included, is in its future and does not harm the Caller.
    """

    MAX_IDLE_POOL_INSTANCES: ClassVar[int] = 10
    """How many idle threads are kept for `to_thread`, for each backend."""
    MAX_BUFFER_SIZE: ClassVar[int] = 1000
    """How many calls of one function may wait in its queue (`queue_call`)."""

    thread: threading.Thread
    """The thread in which calls run."""
    backend: Backend
    """The kind of event loop that runs there."""
    log: logging.Logger | logging.LoggerAdapter[Any]
    """Where errors go that no future can carry."""
    scheduler: Scheduler
    """Its queue; for other modules of the kernel, not for users."""
    lifespan: Lifespan
    """Its state; for other modules of the kernel, not for users."""
    _queues: QueueMap
    _protected: bool
    get: ClassVar[GetMethod] = GetMethod()
    to_thread: ClassVar[ToThreadMethod] = ToThreadMethod()

    def __new__(
        cls,
        *,
        thread: threading.Thread | None = None,
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        create: bool = False,
        protected: bool = False,
    ) -> Self:
        """Give the Caller of a thread.

        Args:
            thread: whose; by default the current thread.
            log: used instead of the logger ``unstuck``, when created.
            create: make one if there is none; this has to be done inside a running event loop.
            protected: `stop` needs ``force``, when created.

        Raises:
            RuntimeError: there is none, and ``create`` is not set or no event loop runs.
        """
        thread = thread or threading.current_thread()
        found = cls.find(thread)
        if found is not None:
            return found
        if not create:
            raise RuntimeError(
                f"Caller<{thread.name}> does not exist: make one in that thread with"
                " `async with Caller(create=True)`, or a new thread with `Caller.start_new()`"
            )
        backend = current_backend()
        if backend is None:
            raise RuntimeError(
                f"Caller<{thread.name}> cannot be made: no asyncio or trio event loop runs here"
            )
        self = super().__new__(cls)
        self.thread = thread
        self.backend = backend
        self.log = log or logging.getLogger("unstuck")
        self.scheduler = Scheduler(thread.name, self.log)
        self.lifespan = Lifespan(thread, self.scheduler, self._forget)
        self._queues = QueueMap(self)
        self._protected = protected
        registry.add(self)
        return self

    def _forget(self) -> None:
        registry.remove(self)
        pool.discard(self)
        self._queues.close_all()

    def __repr__(self) -> str:
        return f"Caller<{self.thread.name}>"

    async def __aenter__(self) -> Self:
        self.backend = current_backend() or self.backend
        await self.lifespan.enter(self.backend)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return await self.lifespan.leave(exc)

    @property
    def protected(self) -> bool:
        """Whether `stop` does nothing without ``force``."""
        return self._protected

    @property
    def running(self) -> bool:
        """Whether calls are run now; those made before that are held."""
        return self.lifespan.running

    @property
    def stopped(self) -> bool:
        """Whether the Caller takes no calls any more."""
        return self.lifespan.stopped

    def stop(self, *, force: bool = False) -> None:
        """Cancel all calls and end the Caller; for one made by `start_new` the thread ends too.

        From another thread this waits for the end.

        Args:
            force: stop a protected one as well.

        Raises:
            TimeoutError: a call goes on in spite of its cancellation. The Caller takes no others.
        """
        if self._protected and not force:
            return
        self.lifespan.request_stop()
        if not self.lifespan.await_end(monotonic() + STOP_DEADLINE_S):
            raise TimeoutError(
                f"{self!r} did not stop: a call goes on in spite of its cancellation"
            )

    @overload
    def call_soon(
        self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    @overload
    def call_soon(
        self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    def call_soon(
        self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[Any]:
        """Call ``func(*args, **kwargs)`` in the Caller's thread, in a copy of the current context.

        Args:
            func: a function or coroutine function; what it returns is awaited if that is possible.
                A coroutine is taken too.
            *args: its arguments.
            **kwargs: its keyword arguments.

        Raises:
            anyio.ClosedResourceError: the Caller has stopped.
        """
        self._check_call(func)
        future: Future[Any] = Future(self.thread, is_call=True)
        self.scheduler.submit(future, contextvars.copy_context(), func, args, kwargs)
        return future

    @overload
    def call_later(
        self, delay: float, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    @overload
    def call_later(
        self, delay: float, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    def call_later(
        self, delay: float, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[Any]:
        """Call as `call_soon` does, ``delay`` seconds after now."""
        self._check_call(func)
        delay_s = check_seconds(delay, "delay", self)
        future: Future[Any] = Future(self.thread, is_call=True)
        call = DelayedCall(self.scheduler, delay_s, future, func, args, kwargs)
        if delay_s == 0:
            call.submit()
        elif self.scheduler.in_thread():
            call.resume()
        else:
            self.scheduler.post(call)
        return future

    def call_direct(self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a quick function in the event loop, without future or context; errors are logged."""
        self._check_call(func)
        self.scheduler.submit_direct(partial(func, *args, **kwargs) if kwargs else func, *args)

    def post_direct(self, func: Callable[..., Any], *args: object) -> bool:
        """Do as `call_direct`; False, instead of an error, when the Caller has stopped."""
        if self.scheduler.closing:
            return False
        self.scheduler.submit_direct(func, *args)
        return True

    def call_using_backend(
        self,
        backend: Backend,
        func: Callable[P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[Any]:
        """Call as `call_soon` does, in an event loop of this kind.

        If it is not this Caller's kind, that is the loop of a child with a thread of its own, named
        after this one.
        """
        caller = self
        if check_backend(backend) != self.backend:
            caller = self.get(name=f"{self.thread.name} ({backend})", backend=backend)
        return caller.call_soon(func, *args, **kwargs)

    def queue_call(
        self,
        func: Callable[..., Any],
        /,
        *args: object,
        max_buffer_size: float | NoValue = NO_VALUE,
        wait: bool = False,
        **kwargs: object,
    ) -> Coroutine[Any, Any, None] | None:
        """Call a function after its earlier queued calls have ended; errors are logged.

        The queue ends with `queue_close`, or when the function (the object, for a method) is
        collected.

        Args:
            func: a function or coroutine function.
            *args: its arguments.
            max_buffer_size: how many calls may wait, for a new queue; by default `MAX_BUFFER_SIZE`.
            wait: return a coroutine that adds the call and waits until it is within that limit.
            **kwargs: its keyword arguments.

        Raises:
            anyio.WouldBlock: as many calls wait as may, and ``wait`` is not set.
            anyio.ClosedResourceError: the Caller has stopped.
        """
        self._check_call(func)
        limit = self.MAX_BUFFER_SIZE if isinstance(max_buffer_size, NoValue) else max_buffer_size
        queue = self._queues.get_or_make(func, check_number(limit, "max_buffer_size", self))
        call = QueuedCall(func, args, kwargs)
        if wait:
            return queue.put_and_wait(call)
        queue.put(call)
        return None

    def queue_exists(self, func: Callable[..., Any]) -> bool:
        """Say whether the function has a queue."""
        return self._queues.get(func) is not None

    def queue_get(self, func: Callable[..., Any]) -> Future[None] | None:
        """Give the future that is done when the function's queue is closed; None without one."""
        queue = self._queues.get(func)
        return None if queue is None else queue.closed

    def queue_close(self, func: Callable[..., Any]) -> None:
        """Close the function's queue: calls that wait are dropped, the one that runs goes on."""
        self._queues.close(func)

    def _check_call(self, func: object) -> None:
        if self.scheduler.closing:
            raise stopped_error(self)
        if not callable(func) and not is_awaitable(func):
            raise TypeError(f"{self!r} cannot call {func!r}")

    @classmethod
    def find(cls, thread: threading.Thread) -> Self | None:
        """Give the Caller of a thread, or None."""
        return cast("Self | None", registry.find(thread))

    @classmethod
    def current_future(cls) -> Future[Any] | None:
        """Give the future of the call that the current code belongs to, or None."""
        return current_future.get()

    @classmethod
    def all_callers(cls, running_only: bool = True) -> list[Caller]:
        """List the Callers in the order of their creation."""
        return [caller for caller in registry.all() if caller.running or not running_only]

    @classmethod
    def stop_all(cls, *, _stop_protected: bool = False) -> None:
        """Stop all Callers that are not protected, and wait for their end.

        Raises:
            TimeoutError: some did not end; the message names them.
        """
        registry.stop([c for c in registry.all() if _stop_protected or not c.protected])

    @classmethod
    def forget_dead_threads(cls) -> None:
        """End the Callers whose threads a fork did not take along; for the copy, after the fork."""
        registry.forget_dead_threads()

    @classmethod
    def start_new(
        cls,
        *,
        backend: Backend | NoValue = NO_VALUE,
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        name: str | None = None,
        protected: bool = False,
        backend_options: dict[str, Any] | NoValue | None = NO_VALUE,
    ) -> Self:
        """Start a daemon thread with an event loop and a Caller, and wait until it runs.

        Args:
            backend: by default that of the current event loop; asyncio where none runs.
            log: where errors go that no future can carry.
            name: of the thread, which no other Caller may have.
            protected: `stop` needs ``force``.
            backend_options: given to `anyio.run`.

        Raises:
            RuntimeError: the name is taken.
            ModuleNotFoundError: the backend is not installed.
        """
        backend = check_backend(
            (current_backend() or "asyncio") if isinstance(backend, NoValue) else backend
        )
        options = None if isinstance(backend_options, NoValue) else backend_options
        make = partial(cls, create=True, protected=protected, log=log)
        return registry.start(make, backend, name, options)

    @classmethod
    def get_instance(cls, name: str | None = "MainThread", *, create: bool = False) -> Self:
        """Give the Caller of the thread with this name.

        Args:
            name: of the thread.
            create: start one if there is none (never for the main thread).

        Raises:
            RuntimeError: there is none.
        """
        found = registry.named(name)
        if found is None and create and name != threading.main_thread().name:
            try:
                found = cls.start_new(name=name)
            except RuntimeError:
                # Another thread may have started it at this moment.
                found = registry.named(name)
                if found is None:
                    raise
        if found is None:
            raise RuntimeError(f"Caller<{name}> does not exist")
        return cast("Self", found)

    @classmethod
    def to_thread_by_name(
        cls,
        name: str | None,
        func: Callable[P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[Any]:
        """Call as `call_soon` does in the Caller of this name, which is started if there is none.

        Without a name this is `to_thread`. The main thread's Caller is never started, only used.
        """
        if name is None:
            return cls.to_thread(func, *args, **kwargs)
        return cls.get_instance(name, create=True).call_soon(func, *args, **kwargs)

    @classmethod
    def as_completed(
        cls,
        items: Iterable[Awaitable[T]] | AsyncIterable[Awaitable[T]],
        *,
        max_concurrent: int | NoValue = NO_VALUE,
        shield: bool = False,
    ) -> AsyncGenerator[Future[T], None]:
        """Give futures as they get done.

        The future of the call that this runs in is left out. What is not done when the iteration
        ends is cancelled, by the rule of `Future`.

        Args:
            items: futures, or anything else that can be awaited, which is then called in the
                current Caller. A set, list or tuple is watched whole, all else is taken from as
                there is room.
            max_concurrent: the room; by default `MAX_IDLE_POOL_INSTANCES`.
            shield: do not cancel.
        """
        limit = cls.MAX_IDLE_POOL_INSTANCES
        if not isinstance(max_concurrent, NoValue):
            limit = max_concurrent
        if check_number(limit, "max_concurrent", cls) < 1:
            raise ValueError(f"max_concurrent must be 1 or more, not {limit}")
        return as_completed(items, limit, shield=shield)

    @classmethod
    async def wait(
        cls,
        items: Iterable[Awaitable[T]],
        *,
        timeout: float | None = None,
        return_when: ReturnWhen = "ALL_COMPLETED",
    ) -> tuple[set[Future[T]], set[Future[T]]]:
        """Wait for several futures as `asyncio.wait` does: no TimeoutError, nothing cancelled.

        Returns:
            those that are done, and the others.
        """
        return await wait(items, timeout=timeout, return_when=return_when)
