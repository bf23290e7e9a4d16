"""What the worker of one cell says, on its way to the broker: as if this worker had said it.

Threads: one, that of the cell; it reads and forwards.
"""

from __future__ import annotations

import codecs
import os
import select
import selectors
import socket
import time
from typing import TYPE_CHECKING

from unstuck.codec import Decoder
from unstuck.errors import WireError
from unstuck.protocol import Caught, Failed, Finished, NewPipes, Publish, Ready, Received, Stream
from unstuck.protocol import ToBroker as Messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.protocol import StreamName, ToBroker
    from unstuck_worker.lane import OutputLane
    from unstuck_worker.processes.child import Child

READ_BYTES = 1 << 18
LOOK_S = 0.05
_MAX_FDS = 8


class ChildEnded(Exception):
    """The child has closed its lane, or cannot start."""


class Relay:
    """Reads one child."""

    def __init__(self, child: Child, lane: OutputLane, job: int) -> None:
        """Forward what belongs to ``job`` to ``lane``."""
        self._child = child
        self._lane = lane
        self._job = job
        self._decoder: Decoder[ToBroker] = Decoder(Messages)
        self._selector = selectors.DefaultSelector()
        self._selector.register(child.output, selectors.EVENT_READ)
        self._texts: dict[int, tuple[StreamName, codecs.IncrementalDecoder]] = {}
        for descriptor, name in child.pipes.items():
            self._add_pipe(descriptor, name)
        self._passed: list[int] = []
        self.is_ready = False
        self.received: Received | None = None
        self.finished: dict[int, Finished] = {}
        """The ends of jobs, by number; they are not forwarded."""

    def _add_pipe(self, descriptor: int, name: StreamName) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._texts[descriptor] = (name, decoder)
        self._selector.register(descriptor, selectors.EVENT_READ)

    def close(self) -> None:
        """Read nothing any more."""
        self._selector.close()

    def wait_for(self, fact: Callable[[], bool], tick: Callable[[], None], end_s: float) -> bool:
        """Read until a fact holds; False when it does not by ``end_s``.

        Raises:
            ChildEnded: it never will.
        """
        while not fact():
            tick()
            if time.monotonic() >= end_s:
                return False
            self._read(LOOK_S)
        return True

    def drain(self) -> None:
        """Forward what the pipes hold."""
        while self._read(0.0, with_lane=False):
            pass

    def _read(self, timeout_s: float, *, with_lane: bool = True) -> bool:
        """Read what there is; say whether pipes held something.

        What the lane holds was written before what a pipe holds at the same time: the child waits
        for empty pipes before it writes to the lane.
        """
        ready = [key.fd for key, _ in self._selector.select(timeout_s)]
        lane = self._child.output
        while with_lane and select.select([lane], [], [], 0)[0]:
            self._read_lane()
        pipes = [descriptor for descriptor in ready if descriptor in self._texts]
        return sum(map(self._read_pipe, pipes)) > 0

    def _read_pipe(self, descriptor: int) -> bool:
        name, decoder = self._texts[descriptor]
        data = os.read(descriptor, READ_BYTES)
        text = decoder.decode(data, final=not data)
        if text:
            self._lane.send(Stream(self._job, name, text))
        if not data:
            self._selector.unregister(descriptor)
            del self._texts[descriptor]
        return bool(data)

    def _read_lane(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._child.output, READ_BYTES, _MAX_FDS)
            messages = self._decoder.feed(data)
        except (OSError, WireError) as error:
            raise ChildEnded(str(error)) from error
        self._passed += descriptors
        if not data:
            raise ChildEnded("it has ended")
        for message in messages:
            self._take(message)

    def _take(self, message: ToBroker) -> None:
        match message:
            case Ready():
                self.is_ready = True
            case Failed():
                raise ChildEnded(message.reason)
            case Received():
                self.received = message
            case Finished():
                self.finished[message.job] = message
            case Publish() | Stream() | Caught() if message.job in (self._job, 0):
                self._lane.send(message)
            case NewPipes():
                for name in (name for name, _ in list(self._texts.values())[:2]):
                    descriptor = self._passed.pop(0)
                    self._child.pipes[descriptor] = name
                    self._add_pipe(descriptor, name)
            case _:
                pass  # Settings, exits and restarts are not this process's to ask for.
