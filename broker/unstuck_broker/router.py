"""The control channel without zmq's thread: a ROUTER whose every byte the broker moves itself.

libzmq hands each message from its own thread to the broker's and back. On a machine whose
processors are taken each of these hands waits for one, and an answer on control stands behind the
outputs that the thread sends: here it is one read and one write (docs/architecture.md has the
figures). For plain TCP on Linux; `unstuck_broker.sockets` has libzmq for everything else.

Threads: one, the broker's loop.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from unstuck.errors import ClientError
from unstuck_broker import zmtp
from unstuck_broker.log import log

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ_BYTES = 1 << 18
_BACKLOG = 128
MAX_PEERS = 512
"""Whoever connects while so many are there is turned away."""
HANDSHAKE_S = 30.0
"""As libzmq: who has said nothing useful for so long is left when the next one connects."""
MAX_UNSENT_BYTES = 64 << 20
"""What waits for a client that does not read its answers; what comes beyond is dropped."""


class Router:
    """A ROUTER socket on one address.

    Its descriptor is readable while anything is to be done, unlike that of a zmq socket.
    """

    def __init__(self, address: tuple[str, int], max_frame_bytes: int) -> None:
        """Listen.

        Args:
            address: a numeric IP address, and a port; 0 lets the system choose.
            max_frame_bytes: a client that sends a larger frame, or a message of twice that, loses
                its connection.

        Raises:
            OSError: the address is taken or not ours.
        """
        is_ipv6 = ":" in address[0]
        self._listener = socket.create_server(
            address,
            family=socket.AF_INET6 if is_ipv6 else socket.AF_INET,
            backlog=_BACKLOG,
            dualstack_ipv6=is_ipv6 and socket.has_dualstack_ipv6(),
        )
        self._listener.setblocking(False)
        self._max_frame_bytes = max_frame_bytes
        self._poll = select.epoll()
        # Told of once: who cannot be let in for lack of descriptors shall not keep us busy.
        self._poll.register(self._listener, select.EPOLLIN | select.EPOLLET)
        self._connections: dict[int, _Connection] = {}
        """By descriptor."""
        self._named: dict[bytes, _Connection] = {}
        """By identity: of two with the same name the one that came last."""
        self._numbers = itertools.count(1)
        # Room for each read made anew would cost more than the read.
        self._room = memoryview(bytearray(_READ_BYTES))
        self._messages: deque[list[bytes | memoryview]] = deque()

    @property
    def port(self) -> int:
        """Name the port."""
        return int(self._listener.getsockname()[1])

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._poll.fileno()

    def receive(self) -> list[bytes | memoryview] | None:
        """Take one message, the sender's identity in front; None when there is none."""
        return self._messages.popleft() if self.pending() else None

    def pending(self) -> bool:
        """Say whether a message waits, after all that the connections have to say was done."""
        if not self._messages:
            for descriptor, events in self._poll.poll(0):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif (connection := self._connections.get(descriptor)) is not None:
                    self._serve(connection, events)
        return bool(self._messages)

    def send(self, frames: Sequence[bytes | memoryview]) -> bool:
        """Send a message to whom the first frame names; False when that one does not read.

        A message to a client that is gone is dropped, as by every ROUTER.
        """
        connection = self._named.get(bytes(frames[0]))
        return connection is None or self._put(connection, zmtp.encode(frames[1:]))

    def close(self, linger_ms: int) -> None:
        """Close everything; what was sent has ``linger_ms`` to leave. Closing twice is fine."""
        deadline_s = time.monotonic() + linger_ms / 1000
        self._listener.close()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                if connection.unsent:
                    connection.sock.settimeout(max(deadline_s - time.monotonic(), 0.001))
                    connection.sock.sendall(connection.unsent)
            connection.sock.close()
        self._connections.clear()
        self._named.clear()
        self._poll.close()

    # --- connections ------------------------------------------------------------------------------

    def _accept(self) -> None:
        """Let in who waits at the door; one who is turned away learns it at once."""
        self._leave_the_silent()
        for _ in range(_BACKLOG):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # Gone again; or no descriptor is left.
                log(f"refused channel=control why={str(error)!r}")
                return
            if len(self._connections) >= MAX_PEERS:
                log(f"refused channel=control why='{MAX_PEERS} clients are connected'")
                sock.close()
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(sock, self._max_frame_bytes)
            self._connections[sock.fileno()] = connection
            self._poll.register(sock, select.EPOLLIN)
            self._put(connection, zmtp.GREETING)

    def _leave_the_silent(self) -> None:
        """Close what has connected long ago and is not there yet."""
        latest_s = time.monotonic() - HANDSHAKE_S
        for connection in list(self._connections.values()):
            if not connection.peer.is_ready and connection.since_s < latest_s:
                self._leave(connection)

    def _serve(self, connection: _Connection, events: int) -> None:
        """Send what waits for one client, and take what has come from it."""
        if events & select.EPOLLOUT:
            self._push(connection)
        if not events & ~select.EPOLLOUT:
            return
        try:
            size = connection.sock.recv_into(self._room)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._leave(connection)
            return
        peer = connection.peer
        was_ready = peer.is_ready
        try:
            messages = peer.feed(bytes(self._room[:size]))
        except ClientError as error:
            log(f"disconnected channel=control why={str(error)!r}")
            self._leave(connection)
            return
        if not was_ready and peer.is_ready:
            connection.name = peer.identity or b"\0" + next(self._numbers).to_bytes(4, "big")
            self._named[connection.name] = connection
        for message in messages:
            self._messages.append([connection.name, *message])
        if answers := peer.answers():
            self._put(connection, answers)

    def _put(self, connection: _Connection, data: bytes) -> bool:
        """Send bytes, or have them wait behind others; False when too much waits."""
        if connection.unsent:
            if len(connection.unsent) > MAX_UNSENT_BYTES:
                return False
            connection.unsent += data
            return True
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # Gone: the next read says so, and what it had asked may still be there.
            return True
        if sent < len(data):
            connection.unsent += data[sent:]
            self._poll.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)
        return True

    def _push(self, connection: _Connection) -> None:
        """Send more of what waits."""
        try:
            sent = connection.sock.send(connection.unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(connection.unsent)
        del connection.unsent[:sent]
        if not connection.unsent:
            self._poll.modify(connection.sock, select.EPOLLIN)

    def _leave(self, connection: _Connection) -> None:
        """Close a connection; another one that its client has made is there already, perhaps."""
        del self._connections[connection.sock.fileno()]
        self._poll.unregister(connection.sock)
        connection.sock.close()
        if self._named.get(connection.name) is connection:
            del self._named[connection.name]
            for other in self._connections.values():
                if other.name == connection.name:
                    self._named[other.name] = other


class _Connection:
    """One client's connection."""

    __slots__ = ("name", "peer", "since_s", "sock", "unsent")

    def __init__(self, sock: socket.socket, max_frame_bytes: int) -> None:
        self.sock = sock
        self.peer = zmtp.Peer(max_frame_bytes, 2 * max_frame_bytes)
        self.name = b""
        """Its identity, once its handshake is done."""
        self.since_s = time.monotonic()
        self.unsent = bytearray()
