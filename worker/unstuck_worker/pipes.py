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

SETTLE_DEADLINE_S = 0.5
"""How long our text waits for a child's text before it, when the broker reads nothing at all."""
SETTLE_POLL_S = 0.0002
SETTLE_PAUSE_S = 1.0
"""After a wait in vain nothing waits for so long."""

_int = struct.Struct("i")
_counts = struct.Struct("=QQQ")


class SyncPage:
    """One page of memory shared with the broker: what it has read and sent on.

    It holds how often the pipes behind descriptors 1 and 2 were replaced, and for the two of now a
    count of reads, twice each: before the read, and when the text is on its way.
    """

    def __init__(self) -> None:
        """Share nothing before `share`."""
        self._page: mmap.mmap | None = None

    def share(self, descriptor: int) -> None:
        """Map the page; -1 is none."""
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE) if descriptor >= 0 else None

    def reads(self, generation: int) -> tuple[int, int]:
        """Give the counts for descriptors 1 and 2: odd while the broker holds text of a pipe.

        They are 0 as long as the broker does not know this generation of pipes.
        """
        if self._page is None:
            return (0, 0)
        known, out, err = _counts.unpack_from(self._page)
        return (out, err) if known == generation else (0, 0)


class Pipes:
    """The order between our text and the text of C code and children."""

    def __init__(self) -> None:
        """Watch nothing before `watch`."""
        self._page = SyncPage()
        self._retry_s = 0.0
        self._ours: list[tuple[int, int]] = []
        self._generation = 0

    def watch(self, page: int) -> None:
        """Watch descriptors 1 and 2, and the page shared with the broker; -1 is none."""
        self._page.share(page)
        self._retry_s = 0.0
        self._ours = self._nodes()
        self._generation = 0

    def settle(self) -> None:
        """Wait, for a bounded time, until the broker has sent on what the pipes hold by now."""
        flush_c_streams()
        if not self._pending():
            return
        now = time.monotonic()
        if now < self._retry_s:
            return
        end = now + SETTLE_DEADLINE_S
        # A read that begins after this takes all that a pipe holds by now, whatever a child that
        # writes without end adds; one that has begun already may take less.
        enough = [(count + 1 | 1) + 1 for count in self._reads()]
        while any(self._reads()[index] < enough[index] for index in self._pending()):
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
        self._generation += 1
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

    def _reads(self) -> tuple[int, int]:
        return self._page.reads(self._generation)

    def _pending(self) -> list[int]:
        """Give the indices of the pipes whose text has not been sent on."""
        # First the pipes, then the page: the broker marks the page before it reads.
        waiting = [_waiting_bytes(1) > 0, _waiting_bytes(2) > 0]
        reads = self._reads()
        return [index for index in (0, 1) if waiting[index] or reads[index] % 2]


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
