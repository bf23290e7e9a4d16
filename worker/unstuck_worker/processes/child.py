"""A worker of one cell: the process, and our ends of its lanes and pipes.

Threads: the one that has started it, which must live as long as it does: it dies with that thread.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from unstuck.codec import encode
from unstuck.protocol import StreamName

if TYPE_CHECKING:
    from unstuck.protocol import ToWorker

END_S = 5.0
"""How long a killed process may take until it is gone."""


class Child:
    """A fresh worker; to it, this process is the broker."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: there can be no more processes or descriptors.
        """
        lanes = [socket.socketpair() for _ in range(3)]
        pipes = [os.pipe() for _ in range(3)]
        self.main, self._thread, self.output = (ours for ours, _ in lanes)
        self.pipes = {pipes[0][0]: StreamName.stdout, pipes[1][0]: StreamName.stderr}
        """The read ends of its descriptors 1 and 2."""
        self._stacks = pipes[2][0]
        theirs = [end.fileno() for _, end in lanes]
        arguments = [*theirs, -1, os.getpid(), pipes[2][1]]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "unstuck_worker", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                pass_fds=[*theirs, pipes[2][1]],
                start_new_session=True,  # An interrupt of the queue's cell is none of this one.
            )
        except OSError:
            self._close_all()
            raise
        finally:
            for _, end in lanes:
                end.close()
            for _, writing in pipes:
                os.close(writing)
        self.pid = self._process.pid

    def send_main(self, message: ToWorker) -> None:
        """Send on the main lane; a child that is gone hears nothing."""
        _send(self.main, message)

    def send_thread(self, message: ToWorker) -> None:
        """Send on the thread lane; a child that is gone hears nothing."""
        _send(self._thread, message)

    def interrupt(self) -> None:
        """Send SIGINT to it and to what it has started."""
        self._signal_group(signal.SIGINT)

    def kill(self) -> None:
        """End it and what it has started."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def collect(self) -> int | None:
        """Kill it if it lives, close all ends; give how it ended, if that is known."""
        if self._process.poll() is None:
            self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self._close_all()
        return self._process.returncode

    def _close_all(self) -> None:
        for lane in (self.main, self._thread, self.output):
            lane.close()
        for descriptor in (*self.pipes, self._stacks):
            with suppress(OSError):
                os.close(descriptor)
        self.pipes = {}


def _send(lane: socket.socket, message: ToWorker) -> None:
    with suppress(OSError):
        for chunk in encode(message):
            lane.sendall(chunk)
