"""The methods of a Caller that can be called on an instance and on the class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from unstuck.callerthread import check_backend
from unstuck.threadpool import pool
from unstuck.waiting import current_backend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from unstuck.caller import Caller
    from unstuck.cancelled import CallerStoppedError
    from unstuck.future import Future
    from unstuck.typing import Backend

P = ParamSpec("P")
T = TypeVar("T")


def stopped_error(caller: Caller) -> CallerStoppedError:
    """Make the error for what is asked of a Caller that has stopped."""
    from unstuck.cancelled import CallerStoppedError  # noqa: PLC0415  (needs anyio)

    return CallerStoppedError(f"{caller!r} has stopped: it takes no more calls")


class BoundToThread:
    """``Caller.to_thread`` or ``caller.to_thread``, ready to be called."""

    __slots__ = ("_caller", "_owner")

    def __init__(self, owner: type[Caller], caller: Caller | None) -> None:
        self._owner = owner
        self._caller = caller

    @overload
    def __call__(
        self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    @overload
    def __call__(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    def __call__(self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Call ``func`` as `Caller.call_soon` does, in an idle thread of the pool or a new one.

        The thread has an event loop of the same kind as the Caller (called on the class: as the
        current loop; asyncio where none runs), and a Caller of its own.

        Raises:
            anyio.ClosedResourceError: the Caller that is asked has stopped.
        """
        owner = self._caller
        if owner is not None and owner.scheduler.closing:
            raise stopped_error(owner)
        backend = owner.backend if owner is not None else current_backend() or "asyncio"
        caller = pool.take(backend) or self._owner.start_new(backend=backend)
        return pool.call(caller, func, args, kwargs)


class ToThreadMethod:
    """`Caller.to_thread`."""

    def __get__(self, caller: Caller | None, owner: type[Caller]) -> BoundToThread:
        return BoundToThread(owner, caller)


class BoundGet:
    """``Caller.get`` or ``caller.get``, ready to be called."""

    __slots__ = ("_caller", "_owner")

    def __init__(self, owner: type[Caller], caller: Caller | None) -> None:
        self._owner = owner
        self._caller = caller

    def __call__(
        self, *, name: str | None = None, backend: Backend | None = None, protected: bool = False
    ) -> Caller:
        """Give the Caller of a thread by its name, started if need be; without a name, a new one.

        Args:
            name: of the thread.
            backend: by default the Caller's own kind of event loop (on the class: that of the
                current loop).
            protected: `Caller.stop` needs ``force``, for a new one.

        Raises:
            RuntimeError: it exists with another backend, or is the main thread's and does not
                exist.
            anyio.ClosedResourceError: the Caller that is asked has stopped.
        """
        parent = self._caller
        if parent is not None and parent.scheduler.closing:
            raise stopped_error(parent)
        wanted = check_backend(backend) if backend is not None else None
        found = None
        if name is not None:
            found = next((c for c in self._owner.all_callers(False) if c.thread.name == name), None)
        if found is None:
            usual = parent.backend if parent is not None else current_backend() or "asyncio"
            found = self._owner.start_new(name=name, backend=wanted or usual, protected=protected)
            if parent is not None:
                parent.lifespan.children.add(found.lifespan)
        elif wanted is not None and found.backend != wanted:
            raise RuntimeError(f"{found!r} runs {found.backend}, not {wanted}")
        return found


class GetMethod:
    """`Caller.get`."""

    def __get__(self, caller: Caller | None, owner: type[Caller]) -> BoundGet:
        return BoundGet(owner, caller)
