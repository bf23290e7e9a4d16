"""The life of a Caller: created, running, stopping, stopped.

Threads: `enter` and `leave` in the Caller's own thread, the rest from any.
"""

from __future__ import annotations

import threading
import weakref
from enum import Enum, auto
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.hosts import Host
    from unstuck.scheduler import Scheduler
    from unstuck.typing import Backend

STOP_DEADLINE_S = 15.0
"""How long `Caller.stop` waits for the end."""


class State(Enum):
    """Where in its life a Caller is."""

    created = auto()
    """Calls are held."""
    running = auto()
    """Calls are run."""
    stopping = auto()
    """No call is taken; those that run have been cancelled."""
    stopped = auto()
    """Nothing runs."""


class EndBody:
    """The order to end, on its way to the Caller's thread."""

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        self._host = host

    def resume(self) -> None:
        self._host.end_body()


class Lifespan:
    """The life of one Caller."""

    def __init__(
        self, thread: threading.Thread, scheduler: Scheduler, on_close: Callable[[], None]
    ) -> None:
        self.state = State.created
        self.owns_thread = False
        """The thread runs nothing else, and ends with the Caller."""
        self.children: weakref.WeakSet[Lifespan] = weakref.WeakSet()
        """They stop with their parent."""
        self._thread = thread
        self._scheduler = scheduler
        self._on_close = on_close
        self._gone = threading.Event()

    @property
    def name(self) -> str:
        """What error messages call the Caller."""
        return f"Caller<{self._thread.name}>"

    @property
    def running(self) -> bool:
        """Calls are run."""
        return self.state is State.running and self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        """No call is taken."""
        return self.state in (State.stopping, State.stopped)

    async def enter(self, backend: Backend) -> None:
        """Begin to run calls, in the event loop that the current task belongs to."""
        if self.state is not State.created or threading.current_thread() is not self._thread:
            raise RuntimeError(
                f"{self.name} is {self.state.name}: `async with` is used once, in its own thread"
            )
        host = _new_host(self._scheduler, backend)
        await host.open()
        self.state = State.running
        self._scheduler.attach(host)

    async def leave(self, error: BaseException | None) -> bool:
        """End all calls; True when the error is but the cancellation of our own stop."""
        self.close()
        host = self._scheduler.host
        try:
            return host is not None and await host.leave(error)
        finally:
            self.end()

    def request_stop(self) -> None:
        """Take no more calls, and have the Caller's thread end it; does not wait."""
        before = self.state
        self.close()
        host = self._scheduler.host
        if before is State.created or host is None or not self._thread.is_alive():
            self.end()
        elif self._scheduler.in_thread():
            host.end_body()
        elif not self._scheduler.post(EndBody(host)):
            self.end()

    def await_end(self, until_s: float) -> bool:
        """Wait until it, and a thread of its own, has ended; False when that takes too long."""
        if threading.current_thread() is self._thread:
            return True
        if not self._gone.wait(max(0.0, until_s - monotonic())):
            return False
        if self.owns_thread:
            self._thread.join(max(0.0, until_s - monotonic()))
            return not self._thread.is_alive()
        return True

    def close(self) -> None:
        """Take no more calls."""
        if self.state is not State.stopped:
            self.state = State.stopping
        self._scheduler.closing = True
        self._on_close()
        for child in tuple(self.children):
            child.request_stop()

    def end(self) -> None:
        """Be gone: whoever still waits for a call gets a cancelled future."""
        self.state = State.stopped
        self._scheduler.detach()
        self._gone.set()


def _new_host(scheduler: Scheduler, backend: Backend) -> Host:
    # Imported here: asyncio and trio cost more than everything else that a Caller imports.
    if backend == "trio":
        from unstuck.trio_host import TrioHost  # noqa: PLC0415  (imports its library)

        return TrioHost(scheduler)
    from unstuck.asyncio_host import AsyncioHost  # noqa: PLC0415  (imports its library)

    return AsyncioHost(scheduler)
