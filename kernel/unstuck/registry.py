"""Which thread has which Caller.

Threads: any. Reading and changing take single steps of the interpreter; only the start of a thread
with a name takes a lock, since a name has one Caller.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from unstuck.callerthread import ThreadStart
from unstuck.lifespan import STOP_DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unstuck.caller import Caller
    from unstuck.typing import Backend

C = TypeVar("C", bound="Caller")

START_DEADLINE_S = 60.0
"""How long a new thread may take until its event loop runs."""


class Registry:
    """The Callers of this process, by thread, in the order of their creation."""

    def __init__(self) -> None:
        self._callers: dict[threading.Thread, Caller] = {}
        self._naming = threading.Lock()

    def add(self, caller: Caller) -> None:
        """Register a Caller as its thread's."""
        self._callers[caller.thread] = caller

    def remove(self, caller: Caller) -> None:
        """Forget a Caller, if it is (still) its thread's."""
        if self._callers.get(caller.thread) is caller:
            del self._callers[caller.thread]

    def find(self, thread: threading.Thread) -> Caller | None:
        """Give a thread's Caller."""
        return self._callers.get(thread)

    def named(self, name: str | None) -> Caller | None:
        """Give the Caller of the thread with this name."""
        for caller in self.all():
            if name is not None and caller.thread.name == name:
                return caller
        return None

    def all(self) -> tuple[Caller, ...]:
        """List all."""
        return tuple(self._callers.values())

    def start(
        self,
        make: Callable[[], C],
        backend: Backend,
        name: str | None,
        options: dict[str, Any] | None,
    ) -> C:
        """Start a thread with a Caller and wait until that runs.

        Raises:
            RuntimeError: the name is taken, or is the main thread's.
        """
        if name == threading.main_thread().name:
            raise RuntimeError(
                f"Caller<{name}> does not exist: it is made in the main thread, with"
                " `async with Caller(create=True)`"
            )
        with self._naming if name is not None else nullcontext():
            if self.named(name) is not None:
                raise RuntimeError(f"Caller<{name}> exists already")
            return ThreadStart(make, backend, name, options).wait(START_DEADLINE_S)

    def stop(self, callers: Sequence[Caller]) -> None:
        """Stop Callers and wait for their end, all at the same time.

        Raises:
            TimeoutError: some did not end; the message names them.
        """
        for caller in callers:
            caller.lifespan.request_stop()
        until = monotonic() + STOP_DEADLINE_S
        if left := [caller for caller in callers if not caller.lifespan.await_end(until)]:
            raise TimeoutError(
                f"{', '.join(map(repr, left))} did not stop: a call goes on in spite of its"
                " cancellation"
            )

    def forget_dead_threads(self) -> None:
        """End the Callers whose threads a fork did not take along."""
        # The lock may have been held by one of them.
        self._naming = threading.Lock()
        for caller in self.all():
            if not caller.thread.is_alive():
                caller.lifespan.request_stop()


registry = Registry()
