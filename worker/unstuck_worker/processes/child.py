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

from typing_extensions import override

from unstuck.codec import encode
from unstuck.protocol import StreamName

if TYPE_CHECKING:
    from unstuck.protocol import ToWorker

END_S = 5.0
"""How long a killed process may take until it is gone."""


class Ends:
    """The child's ends of lanes and pipes, until it has them."""

    def __init__(self, lanes: list[socket.socket], pipes: list[int]) -> None:
        """Keep main, thread and output lane, and the pipes of 1, 2 and stacks."""
        self.lanes = lanes
        self.pipes = pipes

    def close(self) -> None:
        """Leave them to the child."""
        for lane in self.lanes:
            lane.close()
        for descriptor in self.pipes:
            os.close(descriptor)


class Child:
    """A worker of one cell; to it, this process is the broker."""

    pid: int
    theirs: Ends

    def _make_ends(self) -> None:
        lanes = [socket.socketpair() for _ in range(3)]
        pipes = [os.pipe() for _ in range(3)]
        self.main, self._thread, self.output = (ours for ours, _ in lanes)
        self.pipes = {pipes[0][0]: StreamName.stdout, pipes[1][0]: StreamName.stderr}
        """The read ends of its descriptors 1 and 2."""
        self._stacks = pipes[2][0]
        self.theirs = Ends([end for _, end in lanes], [end for _, end in pipes])

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
        raise NotImplementedError

    def await_end(self) -> int | None:
        """Give how it has ended, which has closed its lane; None where that cannot be known."""
        return self.collect()

    def collect(self) -> int | None:
        """Kill it if it lives, close all ends; give how it ended, if that is known."""
        raise NotImplementedError

    def _close_all(self) -> None:
        for lane in (self.main, self._thread, self.output):
            lane.close()
        for descriptor in (*self.pipes, self._stacks):
            with suppress(OSError):
                os.close(descriptor)
        self.pipes = {}


class Fresh(Child):
    """One that is started anew: it has nothing of this session yet."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: there can be no more processes or descriptors.
        """
        self._make_ends()
        theirs = self.theirs
        lanes = [lane.fileno() for lane in theirs.lanes]
        arguments = [*lanes, -1, os.getpid(), theirs.pipes[2], -1]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "unstuck_worker", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=theirs.pipes[0],
                stderr=theirs.pipes[1],
                pass_fds=[*lanes, theirs.pipes[2]],
                start_new_session=True,  # An interrupt of the queue's cell is none of this one.
            )
        except OSError:
            self._close_all()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid

    @override
    def _signal_group(self, number: int) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    @override
    def collect(self) -> int | None:
        if self._process.poll() is None:
            self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self._close_all()
        return self._process.returncode


def _send(lane: socket.socket, message: ToWorker) -> None:
    with suppress(OSError):
        for chunk in encode(message):
            lane.sendall(chunk)
