"""The worker's side of the tray: the next cell, taken at the end of the one before it.

Threads: the main thread's. What it is for is said in `unstuck_broker.tray`.
"""

from __future__ import annotations

import socket
from collections import deque

from unstuck.codec import Decoder
from unstuck.protocol import Run, ToWorker

READ_BYTES = 64 << 10
"""More than the broker puts there at once; and so little that it is no mapping of its own."""


class Tray:
    """What lies there belongs to whoever reads it first: this worker, or the broker."""

    def __init__(self, descriptor: int) -> None:
        """Take from the socket ``descriptor``; -1 is none."""
        self.socks = [] if descriptor < 0 else [socket.socket(fileno=descriptor)]
        """That one, if there is one: forked children of cells close it."""
        self._taken: deque[bytes] = deque()

    def take(self) -> bool:
        """Take what lies there; say whether something was taken by now."""
        if not self._taken:
            try:
                # By C code: an exception of a signal handler cannot lose what was read.
                for sock in self.socks:
                    self._taken.extend(map(sock.recv, (READ_BYTES,), (socket.MSG_DONTWAIT,)))
            except OSError:  # Nothing lies there; or this is a copy of the worker, without a tray.
                return False
        return bool(self._taken)

    def next(self) -> Run | None:
        """Give the job that was taken."""
        if not self._taken:
            return None
        messages = Decoder[ToWorker](ToWorker).feed(self._taken.popleft())
        return next((message for message in messages if isinstance(message, Run)), None)

    def forget(self) -> None:
        """Have taken nothing: this copy is the worker now."""
        self._taken.clear()
