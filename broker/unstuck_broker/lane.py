"""The broker's ends of the lanes: bytes in and out of socketpairs, never waiting.

Threads: the broker's loop only.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from unstuck.codec import Decoder, encode
from unstuck.errors import WireError
from unstuck.protocol import Publish, Stream, ToBroker, ToWorker
from unstuck_broker.pace import FLOOD_BYTES, Pace
from unstuck_broker.reason import Reason, Why

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from unstuck_broker.pace import Precedence

SLICE_BYTES = 64 << 10
"""Read at most so much before control is looked at again: half a millisecond of work."""
LARGE_SLICE_BYTES = 1 << 20
"""The same of a message that is larger: until it is whole, there is no work."""
MESSAGES_AT_ONCE = 8
"""Take at most so many of a slice before control is looked at again."""
_MAX_FDS = 2


class LaneWriter:
    """Sends messages into the worker; what the socket does not take waits here."""

    def __init__(self, lane: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Write to a non-blocking socket."""
        self._lane = lane
        self._loop = loop
        self._waiting: deque[memoryview] = deque()
        self.waiting_bytes = 0
        """For `app`, which stops reading shell when it grows."""

    def send(self, message: ToWorker) -> None:
        """Send a message, now or when there is room; into a dead worker it vanishes."""
        for chunk in encode(message):
            self._waiting.append(memoryview(chunk))
            self.waiting_bytes += len(chunk)
        if len(self._waiting) and not self._flush():
            self._loop.add_writer(self._lane, self._on_writable)

    def close(self) -> None:
        """Forget what waits."""
        self._loop.remove_writer(self._lane)
        self._waiting.clear()
        self.waiting_bytes = 0

    def _on_writable(self) -> None:
        if self._flush():
            self._loop.remove_writer(self._lane)

    def _flush(self) -> bool:
        """Write what the socket takes; True when nothing is left."""
        while self._waiting:
            chunk = self._waiting[0]
            try:
                sent = self._lane.send(chunk)
            except BlockingIOError:
                return False
            except OSError:
                self._waiting.clear()
                self.waiting_bytes = 0
                return True  # The worker is dead or has closed its lane: its exit or EOF tells.
            self.waiting_bytes -= sent
            if sent < len(chunk):
                self._waiting[0] = chunk[sent:]
            else:
                self._waiting.popleft()
        return True


class LaneReader:
    """Reads the output lane, slice by slice, while it is not paused."""

    def __init__(
        self,
        lane: socket.socket,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[ToBroker, bool], None],
        broken: Callable[[Reason], None],
        precedence: Precedence,
    ) -> None:
        """Read a non-blocking socket.

        Args:
            lane: the socket.
            loop: the broker's.
            take: gets each message, and whether another one follows at once.
            broken: gets the reason when the lane is of no use: rubbish, or closed by the worker.
            precedence: what goes before a flood.
        """
        self._lane = lane
        self._loop = loop
        self._take = take
        self._broken = broken
        self._decoder: Decoder[ToBroker] = Decoder(ToBroker)
        self._fds: deque[int] = deque()
        self._waiting: deque[ToBroker] = deque()
        """Messages that were read and not taken yet."""
        self._pace = Pace(loop, self._stop, self._go_on, precedence)
        self._shown_bytes = 0
        """Of outputs, read so far."""
        self._ended = False
        self.paused = True
        self.resume()

    def pause(self) -> None:
        """Leave the rest in the socket: its writers block, and that is the back-pressure."""
        if not self.paused:
            self.paused = True
            self._pace.forget()
            self._stop()

    def resume(self) -> None:
        """Go on reading."""
        if self.paused and not self._ended:
            self.paused = False
            self._go_on()

    def _stop(self) -> None:
        self._loop.remove_reader(self._lane)

    def _go_on(self) -> None:
        self._loop.add_reader(self._lane, self._on_readable)
        if self._waiting:
            self._loop.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        if self.paused or self._pace.rests or not self._pace.begin() or self.paused:
            return
        before = self._shown_bytes
        if not self._waiting:
            self._receive()
        self._take_some(MESSAGES_AT_ONCE)
        if not self.paused:
            self._pace.end(self._shown_bytes - before, has_more=bool(self._waiting))
        if self._waiting and not self.paused and not self._pace.rests:
            self._loop.call_soon(self._on_readable)

    def read_slice(self) -> bool:
        """Read one slice, and take all that was read; False when there is nothing to read now."""
        was_waiting = bool(self._waiting)
        was_read = self._receive()
        self._take_some(len(self._waiting))
        return was_read or was_waiting

    def _take_some(self, count: int) -> None:
        left = min(count, len(self._waiting))
        while left:
            left -= 1
            message = self._waiting.popleft()
            self._shown_bytes += _shown_bytes(message)
            self._take(message, left > 0)

    def _receive(self) -> bool:
        """Read one slice into memory; False when there is nothing to read now."""
        if self._ended:
            return False
        try:
            size = min(max(SLICE_BYTES, self._decoder.missing_bytes), LARGE_SLICE_BYTES)
            data, ancillary, _flags, _address = self._lane.recvmsg(
                size, socket.CMSG_SPACE(_MAX_FDS * 4)
            )
        except BlockingIOError:
            return False
        except OSError as error:
            self._end(Why.LANE_BROKEN, f"its output lane failed: {error}")
            return False
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._fds.extend(array.array("i", payload[: len(payload) // 4 * 4]))
        if not data:
            self._end(Why.LANE_CLOSED, "it closed its output lane")
            return False
        self._decode(data)
        return True

    def drain(self) -> None:
        """Read what is there, to the end: the worker is dead and writes no more."""
        while self.read_slice():
            pass

    def take_fds(self) -> tuple[int, int] | None:
        """Give the two descriptors that came with a `NewPipes`."""
        if len(self._fds) < 2:
            return None
        return self._fds.popleft(), self._fds.popleft()

    def close(self) -> None:
        """Stop reading for good."""
        self.pause()
        self._ended = True
        while self._fds:
            os.close(self._fds.popleft())

    def _decode(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
        except WireError as error:
            self._end(Why.LANE_BROKEN, f"it wrote rubbish into its output lane: {error}")
            return
        self._waiting += messages

    def _end(self, why: Why, words: str) -> None:
        self.pause()
        self._ended = True
        self._broken(Reason(why, words))


def _shown_bytes(message: ToBroker) -> int:
    """Count an output; a large one is none of a flood, which is many."""
    match message:
        case Stream(text=text):
            return len(text)
        case Publish(content=content) if len(content) < FLOOD_BYTES:
            return len(content)
        case _:
            return 0
