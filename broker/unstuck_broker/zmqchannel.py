"""One bound zmq socket: whole messages in and out, and what zmq still sends from our memory.

Threads: one, the broker's loop. zmq itself has one more for the input and output.

The file descriptor of a zmq socket is edge-triggered: it is readable once when something has
changed, and after any send or receive on that socket it may stay silent although messages wait. So
after each send and each round of receives ask `ZmqChannel.pending` before waiting for it again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import zmq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmq.backend import Socket as ZmqSocket

ZERO_COPY_BYTES = 1 << 16
"""From this size on zmq sends a frame from our memory, which then counts as in flight."""

# Plain numbers: zmq's own are enums, whose operators cost more than the call that they are for.
_POLLIN = int(zmq.POLLIN)
_EVENTS = int(zmq.EVENTS)
_PLAIN_FRAMES = 7
"""Of a client's request: one identity, the delimiter, the signature and 4 JSON frames."""
_REFUSED = (zmq.EAGAIN, zmq.EHOSTUNREACH)
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class InFlight:
    """The large frames that zmq sends from our memory, of all sockets in the order of sending."""

    def __init__(self) -> None:
        """Begin with none."""
        self._trackers: deque[tuple[zmq.MessageTracker, int]] = deque()
        self._size_bytes = 0

    def add(self, tracker: zmq.MessageTracker, size_bytes: int) -> None:
        """Count a frame until its tracker is done."""
        self._trackers.append((tracker, size_bytes))
        self._size_bytes += size_bytes

    @property
    def size_bytes(self) -> int:
        """How much there is now."""
        while self._trackers and self._trackers[0][0].done:
            self._size_bytes -= self._trackers.popleft()[1]
        return self._size_bytes


class ZmqChannel:
    """A channel on a zmq socket."""

    def __init__(self, socket: ZmqSocket, in_flight: InFlight) -> None:
        """Own a socket; its large frames are counted in ``in_flight``."""
        self.socket = socket
        self._in_flight = in_flight

    def fileno(self) -> int:
        """Give the descriptor to wait on; edge-triggered, see the head of this module."""
        return int(self.socket.get(zmq.FD))

    def pending(self) -> bool:
        """Say whether a message waits to be received; it also re-arms the descriptor."""
        return bool(int(self.socket.get(_EVENTS)) & _POLLIN)

    def receive(self) -> list[bytes | memoryview] | None:
        """Take one whole multipart message, or None when there is none.

        Frames behind the first `_PLAIN_FRAMES` are views into zmq's memory: buffers may be large.
        """
        receiver = self.socket
        if not int(receiver.get(_EVENTS)) & _POLLIN:  # An empty receive raises, which costs more.
            return None
        frame = receiver.recv(_NOBLOCK, copy=False)
        frames: list[bytes | memoryview] = [frame.bytes]
        # zmq gives a message to us only when its last frame is there. The frame knows whether it
        # is the last; to ask the socket takes as long as to receive one.
        while frame.more:
            frame = receiver.recv(_NOBLOCK, copy=False)
            frames.append(frame.bytes if len(frames) < _PLAIN_FRAMES else frame.buffer)
        return frames

    def send(self, frames: Sequence[bytes | memoryview]) -> bool:
        """Hand a message to zmq; False, and nothing is sent, when it does not take it."""
        sender = self.socket
        last = len(frames) - 1
        for at, frame in enumerate(frames):
            flags = _MORE if at < last else _NOBLOCK
            try:
                if len(frame) < ZERO_COPY_BYTES:
                    sender.send(frame, flags)
                else:
                    tracker = sender.send(frame, flags, copy=False, track=True)
                    self._in_flight.add(tracker, len(frame))
            except zmq.ZMQError as error:
                # zmq makes room for a message as a whole: it refuses the first frame or none.
                if at or error.errno not in _REFUSED:
                    raise
                return False
        return True

    def close(self, linger_ms: int) -> None:
        """Close the socket; what was sent has ``linger_ms`` to leave."""
        self.socket.close(linger=linger_ms)
