"""The shell channel, closed while a blocking job runs; requests that come meanwhile wait unread."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from unstuck_broker.job import size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck_broker.job import Job
    from unstuck_broker.wire import Request


class Arrival(NamedTuple):
    """A request that came in."""

    number: int
    """In the order of arrival; its job gets it."""
    request: Request
    received_s: float


class Gate:
    """Lets requests of the shell channel through, one blocking job at a time."""

    __slots__ = ("_closed_by", "_held", "size_bytes")

    def __init__(self) -> None:
        """Start open."""
        self._closed_by: Job | None = None
        self._held: deque[Arrival] = deque()
        self.size_bytes = 0
        """Memory of what is held."""

    def __len__(self) -> int:
        """Count the requests that are held."""
        return len(self._held)

    @property
    def closed(self) -> bool:
        """Tell whether a request has to wait: behind a job, or behind others that wait."""
        return self._closed_by is not None or bool(self._held)

    def close(self, job: Job) -> None:
        """Let nothing through until a job is over."""
        self._closed_by = job

    def open(self, job: Job) -> None:
        """Open again if it was this job that had closed it."""
        if self._closed_by is job:
            self._closed_by = None

    def hold(self, arrival: Arrival) -> None:
        """Let a request wait."""
        self._held.append(arrival)
        self.size_bytes += size_bytes(arrival.request)

    def next(self) -> Arrival | None:
        """Let the next request through; None while it is closed, or when none waits."""
        if self._closed_by is not None or not self._held:
            return None
        return self._let_go(self._held.popleft())

    def take(self, wanted: Callable[[Arrival], bool]) -> list[Arrival]:
        """Take out the requests that ``wanted`` names, in the order of their arrival."""
        if not self._held:
            return []
        taken = [self._let_go(arrival) for arrival in self._held if wanted(arrival)]
        numbers = {arrival.number for arrival in taken}
        self._held = deque(a for a in self._held if a.number not in numbers)
        return taken

    def _let_go(self, arrival: Arrival) -> Arrival:
        self.size_bytes -= size_bytes(arrival.request)
        return arrival
