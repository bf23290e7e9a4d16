"""Descriptors 1 and 2: what C code and child processes write goes to the broker by pipes.

Threads: `settle` is called under the output lane's lock.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from fcntl import ioctl
from termios import FIONREAD
from typing import TYPE_CHECKING

from unstuck.protocol import NewPipes
from unstuck_worker.process import flush_c_streams

if TYPE_CHECKING:
    from unstuck.jobcontext import JobContext
    from unstuck_worker.lane import OutputLane

SETTLE_DEADLINE_S = 0.05
"""How long our text waits for a child's text before it."""
SETTLE_POLL_S = 0.0002
SETTLE_PAUSE_S = 1.0
"""After a wait in vain (a child that writes without end) nothing waits for so long."""

_int = struct.Struct("i")


class SyncPage:
    """One page of memory shared with the broker: what it has read but not yet sent on."""

    def __init__(self) -> None:
        """Share nothing before `share`."""
        self._page: mmap.mmap | None = None

    def share(self, descriptor: int) -> None:
        """Map the page; -1 is none."""
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE) if descriptor >= 0 else None

    def is_busy(self) -> bool:
        """Say whether the broker holds text of the pipes that it has not sent."""
        return self._page is not None and self._page[:4] != b"\0\0\0\0"


class Pipes:
    """The order between our text and the text of C code and children."""

    def __init__(self) -> None:
        """Watch nothing before `watch`."""
        self._page = SyncPage()
        self._retry_s = 0.0
        self._ours: list[tuple[int, int]] = []

    def watch(self, page: int) -> None:
        """Watch descriptors 1 and 2, and the page shared with the broker; -1 is none."""
        self._page.share(page)
        self._retry_s = 0.0
        self._ours = self._nodes()

    def settle(self) -> None:
        """Wait, for a short and bounded time, until the broker has sent on what the pipes hold."""
        flush_c_streams()
        if not self._is_pending():
            return
        now = time.monotonic()
        if now < self._retry_s:
            return
        end = now + SETTLE_DEADLINE_S
        while self._is_pending():
            if time.monotonic() > end:
                self._retry_s = end + SETTLE_PAUSE_S
                return
            time.sleep(SETTLE_POLL_S)

    def renew(self, lane: OutputLane, context: JobContext) -> None:
        """Leave the pipes to the processes that a job has started, and write to others."""
        if self._nodes() != self._ours:
            return  # The user has redirected a descriptor.
        ends = [os.pipe(), os.pipe()]
        for descriptor, (_, end) in zip((1, 2), ends, strict=True):
            os.dup2(end, descriptor)
            os.close(end)
        self._ours = self._nodes()
        lane.send_with(NewPipes(context.job, context.header), [end for end, _ in ends])
        for end, _ in ends:
            os.close(end)

    @staticmethod
    def _nodes() -> list[tuple[int, int]]:
        """Tell the files behind descriptors 1 and 2 from others."""
        try:
            stats = [os.fstat(descriptor) for descriptor in (1, 2)]
        except OSError:
            return []
        return [(stat.st_dev, stat.st_ino) for stat in stats]

    def _is_pending(self) -> bool:
        # First the pipes, then the page: the broker marks the page before it reads.
        return _waiting_bytes(1) > 0 or _waiting_bytes(2) > 0 or self._page.is_busy()


def _waiting_bytes(descriptor: int) -> int:
    """Count what a pipe holds; 0 for anything that is no pipe."""
    try:
        return int(_int.unpack(ioctl(descriptor, FIONREAD, b"\0\0\0\0"))[0])
    except OSError:
        return 0


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
