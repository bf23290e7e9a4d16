"""Real zmq clients of bound sockets, for tests: every wait has a deadline."""

from __future__ import annotations

import select
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec
import zmq

from unstuck.typing import SocketID
from unstuck_broker.connection import Connection, Curve, new_connection
from unstuck_broker.sockets import BIND_RETRY_S, MAX_FRAME_BYTES, Sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    ZmqSocket = zmq.Socket[bytes]

T = TypeVar("T")
WAIT_S = 20.0
"""How long a test waits for a fact before it fails."""


class Clients:
    """Client sockets of one kernel, with its encryption."""

    def __init__(self, connection: Connection) -> None:
        """Connect to the channels of ``connection``."""
        self.connection = connection
        self.context: zmq.Context[ZmqSocket] = zmq.Context()
        # A socket that is dropped unclosed warns.
        self._made: list[ZmqSocket] = []

    def close(self) -> None:
        """Close all client sockets at once."""
        for made in self._made:
            made.close(linger=0)
        self.context.term()

    def connect(
        self, channel: SocketID, kind: int = zmq.DEALER, *, identity: bytes = b"", hwm: int = 1000
    ) -> ZmqSocket:
        """Make a client's socket; a SUB is subscribed to everything."""
        made = self.context.socket(kind)
        self._made.append(made)
        made.set(zmq.RCVTIMEO, int(WAIT_S * 1000))
        made.set(zmq.RCVHWM, hwm)
        made.set(zmq.IPV6, 1)
        if identity:
            made.set(zmq.IDENTITY, identity)
        if kind == zmq.SUB:
            made.set(zmq.SUBSCRIBE, b"")
        if (curve := self.connection.curve) is not None:
            public_key, secret_key = zmq.curve_keypair()
            made.set(zmq.CURVE_PUBLICKEY, public_key)
            made.set(zmq.CURVE_SECRETKEY, secret_key)
            made.set(zmq.CURVE_SERVERKEY, curve.public_key)
        made.connect(self.connection.endpoint(channel))
        return made

    def subscribe(self, sockets: Sockets, *, hwm: int = 1000) -> ZmqSocket:
        """Make a subscriber, and wait until the kernel knows it."""
        made = self.connect(SocketID.iopub, zmq.SUB, hwm=hwm)
        assert wait_for(sockets.receive_subscription) == b"\x01"
        return made


def wait_for(get: Callable[[], T | None]) -> T:
    """Ask until there is something."""
    end = time.monotonic() + WAIT_S
    while (got := get()) is None:
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.002)
    return got


def receive(sockets: Sockets, channel: SocketID) -> list[bytes | memoryview]:
    """Wait for one message as the broker does: by the descriptor, then by `pending`."""
    end = time.monotonic() + WAIT_S
    poll = select.poll()
    poll.register(sockets.fileno(channel), select.POLLIN)
    while not sockets.pending(channel):
        assert time.monotonic() < end, "nothing came"
        poll.poll(1000)
    frames = sockets.receive(channel)
    assert frames is not None
    return frames


def hear(sockets: Sockets, client: ZmqSocket) -> list[bytes]:
    """Wait for one message at a client, while control is served as in the broker's loop."""
    end = time.monotonic() + WAIT_S
    while not client.poll(1):
        assert time.monotonic() < end, "nothing came"
        sockets.pending(SocketID.control)
    return client.recv_multipart()


def fill(sockets: Sockets, size_bytes: int) -> int:
    """Publish until there is no room; give the number of messages that were taken."""
    count = 0
    while sockets.send(SocketID.iopub, [b"%d" % count, bytes(size_bytes)]):
        count += 1
        assert count < 1_000_000
    return count


def describe(transport: str, folder: Path) -> Connection:
    """Describe a connection with ports to be chosen."""
    connection = new_connection(folder / "kernel.json")
    if transport.startswith("ipc"):
        connection = msgspec.structs.replace(connection, transport="ipc", ip=str(folder / "k"))
    if transport == "tcp6":
        connection = msgspec.structs.replace(connection, ip="::1")
    if "curve" in transport:
        connection = msgspec.structs.replace(connection, curve=Curve(*zmq.curve_keypair()))
    return connection


Bound = tuple[Sockets, Clients]


@contextmanager
def bind(
    connection: Connection,
    *,
    max_frame_bytes: int = MAX_FRAME_BYTES,
    retry_s: float = BIND_RETRY_S,
) -> Generator[Bound]:
    """Bind a kernel's sockets, and close them and their clients afterwards."""
    sockets = Sockets.bind(connection, max_frame_bytes=max_frame_bytes, retry_s=retry_s)
    clients = Clients(sockets.connection)
    try:
        yield sockets, clients
    finally:
        clients.close()
        sockets.close(linger_ms=0)
