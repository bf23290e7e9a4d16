"""The dormant copies of the worker as processes: they report here, and end or become the worker.

A copy is forked twice, so it is our child (we are its subreaper). It connects to an address that
only the worker knows, says `CopyReady`, and reads until it is wanted. It ends at the end of its
connection, and with our death.

Threads: the broker's loop only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING

import msgspec

from unstuck.codec import Decoder, encode
from unstuck.errors import WireError
from unstuck.protocol import CopyReady, Donate, FromCopy, Promote, Receive
from unstuck_broker.events import CopyAppeared, CopyGone, Event
from unstuck_broker.process import Ends, WorkerProcess

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

PROMOTION_S = 5.0
"""How long a promoted copy may take to its first word."""
DONATION_S = 120.0
"""How long the variables may take from a donor to a new worker."""
_BACKLOG = 8
_READ_BYTES = 64 << 10
_CREDENTIALS = struct.Struct("3i")
_BIRTH_S = 0.5
"""A copy is there milliseconds after its fork; so long is its dead worker's tree left alone."""
_LOOK_S = 0.002


class Connection:
    """One copy's connection."""

    __slots__ = ("decoder", "name", "number", "pid", "pidfd", "sock")

    def __init__(self, sock: socket.socket, pid: int) -> None:
        """Own the socket of a peer, and a descriptor of its process."""
        self.sock = sock
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.number: int | None = None
        self.name = ""
        self.decoder: Decoder[CopyReady] = Decoder(FromCopy)

    def kill(self) -> None:
        """Kill the process; one that has ended, and whose pid is another's now, is left alone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def go_on(self) -> None:
        """Let a process go on that somebody has stopped."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)

    def close(self) -> None:
        """Close what is ours."""
        self.sock.close()
        os.close(self.pidfd)


class Dormant:
    """All dormant copies."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: str, emit: Callable[[Event], None]
    ) -> None:
        """Listen where the platform has what copies need.

        Args:
            loop: the broker's.
            address: where copies report, without the NUL; empty: nowhere.
            emit: gets each event.
        """
        self._loop = loop
        self._emit = emit
        self._connections: dict[int, Connection] = {}
        """By pid: all that have connected."""
        self._expected = 0
        """The newest fork that has come back."""
        self._appeared = 0
        """The newest copy that has reported."""
        self.private: frozenset[tuple[int, int]] = frozenset()
        """What the worker had open at its moment, and nobody else can want; see `CopyReady`."""
        self._expected_until_s = 0.0
        self._listener: socket.socket | None = None
        if address and sys.platform == "linux":
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.setblocking(False)
            self._listener.bind(f"\0{address}")
            self._listener.listen(_BACKLOG)
            loop.add_reader(self._listener, self._accept)

    # --- what there is ----------------------------------------------------------------------------

    def pids(self) -> frozenset[int]:
        """Name the processes."""
        return frozenset(self._connections)

    def processes(self) -> dict[int, list[int]]:
        """Give the pids of each copy that has reported, and of its spare, by its number."""
        found: dict[int, list[int]] = {}
        for copy in self._connections.values():
            if copy.number is not None:
                found.setdefault(copy.number, []).append(copy.pid)
        return found

    def expect(self, number: int) -> None:
        """Take note that a fork has come back: its copy will report in a moment."""
        self._expected = number
        self._expected_until_s = self._loop.time() + _BIRTH_S

    def comes(self, then: Callable[[], None]) -> bool:
        """Tell whether a copy is about to report that is not known yet; ``then`` is called later.

        Until it has reported, nothing distinguishes it from the dead worker's other children.
        """
        self._accept()
        if self._appeared >= self._expected or self._loop.time() > self._expected_until_s:
            return False
        self._loop.call_later(_LOOK_S, then)
        return True

    # --- orders -----------------------------------------------------------------------------------

    def promote(self, number: int, order: Promote) -> WorkerProcess:
        """Make a copy the worker: it gets its descriptors with the order.

        Raises:
            OSError: it has ended, or no descriptor is to be had.
        """
        copy = self._take(number)
        ends = Ends()
        try:
            order = msgspec.structs.replace(order, is_guarded=number in self.processes())
            frame = b"".join(encode(order))
            socket.send_fds(copy.sock, [frame], ends.worker_fds())
            copy.go_on()
        except OSError:
            ends.close()
            copy.kill()
            raise
        finally:
            copy.close()
        return ends.hand_over(copy.pid)

    def donate(self, number: int) -> Receive:
        """Have a copy give its variables away; gives the message for the one who takes them."""
        address, name = os.urandom(16).hex(), ""
        with contextlib.suppress(OSError):  # It has ended: the receiver finds nobody.
            copy = self._take(number)
            self._connections[copy.pid] = copy  # It is no member of any worker's tree.
            self._loop.add_reader(copy.pidfd, self._given, copy)
            copy.number = None
            name = copy.name
            copy.sock.send(b"".join(encode(Donate(address, DONATION_S))))
            copy.go_on()
        return Receive(address, DONATION_S, name)

    def _given(self, copy: Connection) -> None:
        """Forget a donor that has given its variables and ended."""
        self._forget(copy)
        copy.close()

    def drop(self, numbers: tuple[int, ...]) -> None:
        """Kill copies, and their spares."""
        for number in numbers:
            while number in self.processes():
                copy = self._take(number)
                copy.kill()
                copy.close()

    def close(self) -> None:
        """Kill all, and listen no more."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for copy in list(self._connections.values()):
            self._forget(copy)
            copy.kill()
            copy.close()

    # --- what happens -----------------------------------------------------------------------------

    def _accept(self) -> None:
        """Take in who connects; only processes of our user can be copies of our worker."""
        while self._listener is not None:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, user, _group = _CREDENTIALS.unpack(packed)
            try:
                if user != os.getuid() or pid in self._connections:
                    raise ProcessLookupError(pid)
                copy = Connection(sock, pid)
            except OSError:
                sock.close()
                continue
            self._connections[pid] = copy
            self._loop.add_reader(sock, self._read, copy)
            self._read(copy)

    def _read(self, copy: Connection) -> None:
        try:
            data = copy.sock.recv(_READ_BYTES)
            words = copy.decoder.feed(data)
        except BlockingIOError:
            return
        except (OSError, WireError):
            data, words = b"", []
        if not data or any(word.pid != copy.pid for word in words):
            self._forget(copy)
            copy.kill()
            copy.close()
            if copy.number is not None:
                self._emit(CopyGone(copy.number, copy.pid))
            return
        for word in words:
            copy.number, copy.name = word.number, word.name
            self._appeared = max(self._appeared, word.number)
            self.private = frozenset(word.private)
            self._emit(CopyAppeared(word))

    def _take(self, number: int) -> Connection:
        found = self._connections.values()
        copy = next((copy for copy in found if copy.number == number), None)
        if copy is None:
            raise ProcessLookupError(f"snapshot {number} has ended")
        self._forget(copy)
        return copy

    def _forget(self, copy: Connection) -> None:
        self._loop.remove_reader(copy.sock)
        self._loop.remove_reader(copy.pidfd)
        self._connections.pop(copy.pid, None)
