"""The lane thread: reads the thread lane and answers at once, whatever the main thread does.

Threads: `run` is the thread's; it never runs user code.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from typing import TYPE_CHECKING, assert_never

from unstuck import lifeline
from unstuck.codec import Decoder
from unstuck.errors import WireError
from unstuck.jobcontext import get_kernel
from unstuck.protocol import (
    CloseSubshell,
    ControlParent,
    InputReply,
    Interrupt,
    OpenSubshell,
    Ping,
    Pong,
    Receive,
    RewindAnswer,
    Run,
    SnapshotList,
    Start,
    Stop,
    ToWorker,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from unstuck_worker.interrupt import Interrupts
    from unstuck_worker.lane import OutputLane
    from unstuck_worker.stdin import Inputs
    from unstuck_worker.threads import Threads

log = logging.getLogger("unstuck.worker")

READ_BYTES = 1 << 18
WAIT_S = 3600.0


class LaneThread:
    """Serve the broker beside the main thread."""

    def __init__(
        self,
        sock: socket.socket,
        lane: OutputLane,
        page: int,
        *,
        threads: Threads,
        interrupts: Interrupts,
        inputs: Inputs,
        count_step: Callable[[], int],
        stop: Callable[[float], None],
    ) -> None:
        """Read ``sock``; hand what it says to the others; ``page`` is shared with the broker."""
        self._sock = sock
        self._page = page
        self._lane = lane
        self._threads = threads
        self._interrupts = interrupts
        self._inputs = inputs
        self._count_step = count_step
        self._stop = stop
        self._look_again_s = WAIT_S
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(interrupts.wakeups, select.POLLIN)

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self.run, name="unstuck-lane", daemon=True).start()

    def run(self) -> None:
        """Serve until the broker is gone, which ends the process."""
        lifeline.hold(self._page)
        decoder: Decoder[ToWorker] = Decoder(ToWorker)
        try:
            while self._serve_once(decoder):
                pass
        except (OSError, WireError):
            log.exception("event=thread_lane_broken")
        if not self._interrupts.is_stopping:  # Else exit handlers go on without the broker.
            os._exit(1)

    def _serve_once(self, decoder: Decoder[ToWorker]) -> bool:
        """Wait for the lane or a signal and serve it; False at the lane's end."""
        ready = {descriptor for descriptor, _ in self._poll.poll(self._look_again_s * 1000)}
        wakeups = self._interrupts.wakeups
        if wakeups.fileno() in ready or self._look_again_s < WAIT_S:
            look_again_s = wakeups.check()
            # While a signal waits for its handler, its byte stays: the clock says when to look.
            self._poll.modify(wakeups, 0 if look_again_s else select.POLLIN)
            self._look_again_s = look_again_s or WAIT_S
        if self._sock.fileno() not in ready:
            return True
        data = self._sock.recv(READ_BYTES)
        for message in decoder.feed(data):
            self._handle(message)
        return bool(data)

    def _handle(self, message: ToWorker) -> None:
        match message:
            case Run():
                self._threads.run(message)
            case ControlParent():
                get_kernel().take_control_parent(message)
            case Ping():
                self._lane.send(Pong(message.number, self._count_step()))
            case InputReply():
                self._inputs.answer(message.request, message.value)
            case Interrupt():
                self._interrupts.interrupt(message.jobs, hard=message.hard)
            case OpenSubshell():
                self._threads.open_subshell(message.subshell)
            case CloseSubshell():
                self._threads.close_subshell(message.subshell)
            case Stop():
                self._stop(message.grace_s)
            case SnapshotList() | RewindAnswer():
                get_kernel().asking.answered(message)
            case Start() | Receive():
                raise WireError(f"{type(message).__name__} came on the thread lane")
            case _:
                assert_never(message)
