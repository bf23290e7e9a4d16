"""What a future knows of the code that runs for it, and of those who wait for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import anyio
    import trio

    from unstuck.caller import Caller


class Call(Protocol):
    """What runs for a future, and how it is told to end."""

    @property
    def executing(self) -> bool:
        """Its code runs now: it neither awaits nor waits for its turn."""
        ...

    def is_current(self) -> bool:
        """Say whether the current task is the one that runs it."""
        ...

    def cancel(self) -> bool:
        """Ask it to end, from any thread; False when nothing is left that could end."""
        ...


class SyncCall:
    """A call that runs without awaiting: it cannot be cancelled, only interrupted."""

    executing = True

    def is_current(self) -> bool:
        return False

    def cancel(self) -> bool:
        return True


SYNC_CALL = SyncCall()


class ScopeCall:
    """A user's own code that fulfils a future inside a cancel scope."""

    __slots__ = ("_scope", "_thread")

    executing = False

    def __init__(
        self, thread: threading.Thread, scope: anyio.CancelScope | trio.CancelScope
    ) -> None:
        self._thread = thread
        self._scope = scope

    def is_current(self) -> bool:
        return False

    def cancel(self) -> bool:
        if threading.current_thread() is self._thread:
            self._scope.cancel()
            return True
        caller = find_caller(self._thread)
        return caller is not None and caller.post_direct(self._scope.cancel)


class Entry(Protocol):
    """One who waits for a future."""

    def wake(self) -> None:
        """Hear that it is done, from any thread."""


class DoneCallback:
    """A user's callback, which runs in the future's own thread."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function


def find_caller(thread: threading.Thread) -> Caller | None:
    """Give the Caller of a thread, or None."""
    from unstuck.caller import Caller  # noqa: PLC0415  (caller imports this module)

    return Caller.find(thread)
