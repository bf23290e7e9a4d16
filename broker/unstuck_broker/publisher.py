"""iopub with back-pressure: a slow subscriber loses nothing, and a dead one stops nobody.

A full iopub holds up the worker's outputs, not the broker: messages wait here, a bounded number,
and the worker is not read meanwhile. A subscriber that does not read at all for ``iopub_stall_s``
loses messages, the others none: once zmq has dropped one for it, it asks no more for it until it
reads again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from unstuck.typing import SocketID

if TYPE_CHECKING:
    import asyncio

    from unstuck.config import Config
    from unstuck_broker.sockets import Sockets

_RETRY_S = 0.005
MAX_WAITING = 10_000
"""Statuses of control requests come while outputs are held: the oldest are dropped then."""


class Flow(Protocol):
    """Told when outputs have to be held, and when they may go on."""

    def __call__(self, *, blocked: bool) -> None: ...


class Publisher:
    """Sends on iopub, in order."""

    def __init__(
        self, sockets: Sockets, config: Config, loop: asyncio.AbstractEventLoop, flow: Flow
    ) -> None:
        """Publish through ``sockets``; ``flow`` holds up and lets go the source of outputs."""
        self._sockets = sockets
        self._stall_s = config.iopub_stall_s
        self._loop = loop
        self._flow = flow
        self._waiting: deque[list[bytes | memoryview]] = deque()
        self._blocked_since_s: float | None = None
        self._lossy = False
        self.max_in_flight_bytes = 256 << 20
        self._given_up_bytes = 0
        """Of what is in flight, what a subscriber that does not read at all holds."""

    def publish(self, frames: list[bytes | memoryview]) -> None:
        """Send a message, after those that wait."""
        if not self._waiting and self._sockets.send(SocketID.iopub, frames):
            if self._is_behind():
                self._block()
            return
        self._waiting.append(frames)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
        self._block()

    def retry(self) -> None:
        """Send what waits, as far as there is room."""
        if self._blocked_since_s is None:
            return
        stalled = self._loop.time() - self._blocked_since_s > self._stall_s
        if stalled and not self._lossy:
            self._lossy = True
            self._sockets.set_nodrop(False)
        while self._waiting and self._sockets.send(SocketID.iopub, self._waiting[0]):
            self._waiting.popleft()
            if not stalled:
                self._blocked_since_s = self._loop.time()
        if stalled:
            self._given_up_bytes = self._sockets.in_flight_bytes
        if not self._waiting and not self._is_behind():
            self._unblock()

    def _is_behind(self) -> bool:
        """Tell whether too many large frames are in flight, not counting those given up."""
        in_flight = self._sockets.in_flight_bytes
        if self._given_up_bytes:
            # Still there: what came since stands behind it, and says nothing about the others.
            self._given_up_bytes = in_flight if in_flight >= self._given_up_bytes else 0
        return in_flight - self._given_up_bytes > self.max_in_flight_bytes

    def _block(self) -> None:
        if self._blocked_since_s is None:
            self._blocked_since_s = self._loop.time()
            self._flow(blocked=True)
            self._loop.call_later(_RETRY_S, self._again)

    def _again(self) -> None:
        self.retry()
        if self._blocked_since_s is not None:
            self._loop.call_later(_RETRY_S, self._again)

    def _unblock(self) -> None:
        if self._lossy:
            self._lossy = False
            self._sockets.set_nodrop(True)
        self._blocked_since_s = None
        self._flow(blocked=False)
