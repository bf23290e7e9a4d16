"""A worker of one cell that is a copy of this one: it has all variables, and took a moment to make.

It is made as a snapshot is, but reports to us and wakes at once; the broker is its parent.

Threads: the cell's own; the fork itself happens in the main thread, when that is free.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from unstuck.codec import Decoder, encode
from unstuck.protocol import CopyReady, FromCopy, Promote
from unstuck_worker.processes.child import END_S, Child
from unstuck_worker.processes.listening import Listening
from unstuck_worker.snapshots import children

if TYPE_CHECKING:
    from unstuck_worker.snapshots.keeper import Snapshots

FREE_S = 0.05
"""How long the main thread may take to be free; then a fresh worker is made instead."""
FORK_S = 10.0
PAGE_BYTES = 4096
READ_BYTES = 1 << 16


class NoCopyError(Exception):
    """There is none; the message says why."""


class Forked(Child):
    """A copy of this worker; to it, this process is the broker."""

    def __init__(self, snapshots: Snapshots, order: Promote) -> None:
        """Fork it and wake it.

        Raises:
            NoCopyError: a fresh worker has to do.
        """
        with Listening() as listening:
            _ask(snapshots, listening.address)
            connection = listening.accept_within(FORK_S)
            if connection is None:
                raise NoCopyError("the copy has not come up")
            with connection:
                ready = _read(connection)
                self.pid = ready.pid
                try:
                    self._exit = os.pidfd_open(ready.pid)
                except OSError as error:
                    raise NoCopyError("the copy has ended") from error
                self._make_ends()
                self._wake(connection, order)

    def _wake(self, connection: socket.socket, order: Promote) -> None:
        theirs = self.theirs
        page = os.memfd_create("sync")
        os.ftruncate(page, PAGE_BYTES)
        out, err, stacks = theirs.pipes
        nobody, tray = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        nobody.close()  # There is no next cell.
        lanes = [lane.fileno() for lane in theirs.lanes]
        try:
            frame = b"".join(encode(order))
            socket.send_fds(connection, [frame], [out, err, *lanes, page, stacks, tray.fileno()])
        except OSError as error:
            self.collect()
            raise NoCopyError("the copy has ended") from error
        finally:
            os.close(page)
            tray.close()
            theirs.close()

    def _is_over(self, timeout_s: float = 0.0) -> bool:
        return bool(select.select([self._exit], [], [], timeout_s)[0])

    def _signal_group(self, number: int) -> None:
        if not self._is_over():
            with suppress(OSError):
                os.killpg(self.pid, number)

    @override
    def await_end(self) -> int | None:
        """Give how it has ended, which can be seen until its parent asks, the broker."""
        return children.exit_code_of(self.pid) if self._is_over(END_S) else None

    @override
    def collect(self) -> int | None:
        """Kill it and close all ends; how it ended `await_end` has to be asked before."""
        if self._exit >= 0:
            with suppress(OSError):
                signal.pidfd_send_signal(self._exit, signal.SIGKILL)
            self.kill()
            self._is_over(END_S)
            os.close(self._exit)
            self._exit = -1
            self._close_all()
        return None


def _ask(snapshots: Snapshots, address: str) -> None:
    """Have the main thread fork, if it is free.

    Raises:
        NoCopyError: it is not, or there must be no fork.
    """
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    lock = threading.Lock()
    state: dict[str, Any] = {"begun": False, "wanted": True}

    def is_wanted() -> bool:
        with lock:
            state["begun"] = state["wanted"]
            return bool(state["wanted"])

    snapshots.lend_soon(address, is_wanted, answers.put)
    try:
        hindrance = answers.get(timeout=FREE_S)
    except queue.Empty:
        with lock:
            state["wanted"] = False
        if not state["begun"]:
            raise NoCopyError("the main thread is busy") from None
        try:
            hindrance = answers.get(timeout=FORK_S)
        except queue.Empty:
            raise NoCopyError("the fork does not come back") from None
    if hindrance:
        raise NoCopyError(hindrance)


def _read(connection: socket.socket) -> CopyReady:
    """Read what the copy says of itself.

    Raises:
        NoCopyError: it is gone.
    """
    decoder: Decoder[CopyReady] = Decoder(FromCopy)
    end_s = time.monotonic() + FORK_S
    connection.settimeout(FORK_S)
    with suppress(OSError):
        while time.monotonic() < end_s and (data := connection.recv(READ_BYTES)):
            for message in decoder.feed(data):
                return message
    raise NoCopyError("the copy has ended")
