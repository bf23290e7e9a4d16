"""The kernel's five zmq sockets; nothing else in the broker knows zmq.

Threads: one, the broker's loop. zmq itself has one more for the input and output.

The file descriptor of a zmq socket is edge-triggered: it is readable once when something has
changed, and after any send or receive on that socket it may stay silent although messages wait. So
after each send and each round of receives ask `Sockets.pending` before waiting for it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import zmq
from zmq.backend import Socket as ZmqSocket  # Without the Python layer over each call.

from unstuck.errors import ConfigError
from unstuck.typing import SocketID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unstuck_broker.connection import Connection


MAX_FRAME_BYTES = 1 << 30
"""zmq drops the connection of a client that sends a larger frame."""
IOPUB_MESSAGES = 1000
"""How many messages wait for one subscriber before `Sockets.send` on iopub says no."""
REPLY_MESSAGES = 100_000
"""How many replies wait for one client: a ROUTER drops what is beyond without a word."""
ZERO_COPY_BYTES = 1 << 16
"""From this size on zmq sends a frame from our memory, which then counts as in flight."""
BIND_RETRY_S = 0.1
"""The kernel that had a port before may be in its last milliseconds."""
EXCHANGE_S = 10.0
"""How long a launcher may take to acknowledge the ports of a kernel."""

# Plain numbers: zmq's own are enums, whose operators cost more than the call that they are for.
_POLLIN = int(zmq.POLLIN)
_EVENTS = int(zmq.EVENTS)
_RCVMORE = int(zmq.RCVMORE)
_PLAIN_FRAMES = 7
"""Of a client's request: one identity, the delimiter, the signature and 4 JSON frames."""
_TERM_S = 1.0
"""How much longer than its sockets linger zmq may take to end."""
_REFUSED = (zmq.EAGAIN, zmq.EHOSTUNREACH)
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)

_BIND_ORDER = (
    SocketID.iopub,  # First, so that a client's subscription is there before its first reply.
    SocketID.shell,
    SocketID.control,
    SocketID.stdin,
    SocketID.heartbeat,
)
_BIND_PAUSE_S = 0.02
_HEARTBEATS_AT_ONCE = 100


class Sockets:
    """The bound sockets of one kernel."""

    def __init__(self, context: zmq.Context[Any], connection: Connection) -> None:
        """Take a context whose sockets are made here; `bind` is the way to get one."""
        self.connection = connection
        """With the ports that were chosen."""
        self._context = context
        self._sockets: dict[SocketID, ZmqSocket] = {}
        self._ipc_files: list[str] = []
        self._in_flight: deque[tuple[zmq.MessageTracker, int]] = deque()
        self._in_flight_bytes = 0

    @classmethod
    def bind(
        cls,
        connection: Connection,
        *,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        retry_s: float = BIND_RETRY_S,
    ) -> Sockets:
        """Bind all five channels, iopub first; ports that are 0 are chosen.

        Args:
            connection: where to bind.
            max_frame_bytes: a client that sends a larger frame loses its connection.
            retry_s: how long to wait for ports that another process still has.

        Raises:
            ConfigError: an address is taken or cannot be used, or the encryption keys are no pair.
        """
        _check_curve(connection)
        sockets = cls(zmq.Context(io_threads=1), connection)
        deadline_s = time.monotonic() + retry_s
        try:
            for channel in _BIND_ORDER:
                bound = sockets._make(channel, max_frame_bytes)
                port = _bind(bound, channel, sockets.connection, deadline_s)
                ports = {**sockets.connection.ports, channel: port}
                sockets.connection = sockets.connection.with_ports(ports)
                if connection.transport == "ipc":
                    sockets._ipc_files.append(f"{connection.ip}-{port}")
        except BaseException:
            sockets.close(linger_ms=0)
            raise
        return sockets

    def _make(self, channel: SocketID, max_frame_bytes: int) -> ZmqSocket:
        """Make the socket of a channel, ready to be bound."""
        iopub = channel is SocketID.iopub
        made = ZmqSocket(self._context, zmq.XPUB if iopub else zmq.ROUTER)
        self._sockets[channel] = made
        made.set(zmq.MAXMSGSIZE, max_frame_bytes)
        if ":" in self.connection.ip:
            made.set(zmq.IPV6, 1)
        if iopub:
            made.set(zmq.SNDHWM, IOPUB_MESSAGES)
            made.set(zmq.XPUB_VERBOSE, 1)
            made.set(zmq.XPUB_NODROP, 1)
        else:
            made.set(zmq.SNDHWM, REPLY_MESSAGES)
            # A client that reconnects under its old identity gets its replies at once
            # (https://github.com/ipython/ipykernel/issues/270).
            made.set(zmq.ROUTER_HANDOVER, 1)
        if channel is SocketID.stdin:
            # We speak first there, perhaps before the client has connected: zmq shall tell.
            made.set(zmq.ROUTER_MANDATORY, 1)
        if (curve := self.connection.curve) is not None:
            made.set(zmq.CURVE_SECRETKEY, curve.secret_key)
            made.set(zmq.CURVE_PUBLICKEY, curve.public_key)
            made.set(zmq.CURVE_SERVER, 1)
        return made

    def fileno(self, channel: SocketID) -> int:
        """Give the descriptor to wait on; edge-triggered, see the head of this module."""
        return int(self._sockets[channel].get(zmq.FD))

    def pending(self, channel: SocketID) -> bool:
        """Say whether a message waits to be received; it also re-arms the descriptor."""
        return bool(int(self._sockets[channel].get(_EVENTS)) & _POLLIN)

    def receive(self, channel: SocketID) -> list[bytes | memoryview] | None:
        """Take one whole multipart message, or None when there is none.

        Frames behind the first `_PLAIN_FRAMES` are views into zmq's memory: buffers may be large.
        """
        receiver = self._sockets[channel]
        if not int(receiver.get(_EVENTS)) & _POLLIN:  # An empty receive raises, which costs more.
            return None
        frames: list[bytes | memoryview] = [receiver.recv(_NOBLOCK)]
        # zmq gives a message to us only when its last frame is there.
        while receiver.get(_RCVMORE):
            if len(frames) < _PLAIN_FRAMES:
                frames.append(receiver.recv(_NOBLOCK))
            else:
                frames.append(receiver.recv(_NOBLOCK, copy=False).buffer)
        return frames

    def receive_subscription(self) -> bytes | None:
        r"""Take a subscriber's ``b"\x01topic"`` (began) or ``b"\x00topic"`` (ended) on iopub."""
        while (frames := self.receive(SocketID.iopub)) is not None:
            # An XSUB client may send messages of its own upstream: they mean nothing to us.
            if len(frames) == 1 and frames[0][:1] in (b"\x00", b"\x01"):
                return bytes(frames[0])
        return None

    def send(self, channel: SocketID, frames: Sequence[bytes | memoryview]) -> bool:
        """Hand a message to zmq; False, and nothing is sent, when it does not take it.

        On iopub a subscriber is `IOPUB_MESSAGES` behind: try again when the channel's descriptor
        fires, or after a few milliseconds. On stdin the client has not connected yet, or is gone.
        A reply on other channels to a client that is gone is dropped.
        """
        sender = self._sockets[channel]
        last = len(frames) - 1
        for at, frame in enumerate(frames):
            flags = _MORE if at < last else _NOBLOCK
            try:
                if len(frame) < ZERO_COPY_BYTES:
                    sender.send(frame, flags)
                else:
                    tracker = sender.send(frame, flags, copy=False, track=True)
                    self._track(tracker, len(frame))
            except zmq.ZMQError as error:
                # zmq makes room for a message as a whole: it refuses the first frame or none.
                if at or error.errno not in _REFUSED:
                    raise
                return False
        return True

    def _track(self, tracker: zmq.MessageTracker, size_bytes: int) -> None:
        self._in_flight.append((tracker, size_bytes))
        self._in_flight_bytes += size_bytes

    @property
    def in_flight_bytes(self) -> int:
        """Large frames that zmq still sends from our memory, in the order of sending."""
        while self._in_flight and self._in_flight[0][0].done:
            self._in_flight_bytes -= self._in_flight.popleft()[1]
        return self._in_flight_bytes

    def set_nodrop(self, nodrop: bool) -> None:
        """Choose for a full iopub: refuse messages (the start), or drop them for who is behind."""
        self._sockets[SocketID.iopub].set(zmq.XPUB_NODROP, int(nodrop))

    def echo_heartbeat(self) -> None:
        """Send heartbeats back where they came from, so many that others still get their turn."""
        for _ in range(_HEARTBEATS_AT_ONCE):
            frames = self.receive(SocketID.heartbeat)
            if frames is None:
                return
            self.send(SocketID.heartbeat, frames)

    def close(self, *, linger_ms: int = 500) -> None:
        """Close all sockets; what was sent has ``linger_ms`` to leave. Closing twice is fine."""
        for closing in self._sockets.values():
            closing.close(linger=linger_ms)
        self._sockets.clear()
        # Seen to wait for ever, once, after large messages that nobody had read.
        ending = threading.Thread(target=self._context.term, name="unstuck-term", daemon=True)
        ending.start()
        ending.join(linger_ms / 1000 + _TERM_S)
        for file in self._ipc_files:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)  # noqa: PTH108 - pathlib costs 2 ms of each start
        self._ipc_files.clear()


def exchange(
    address: str, frames: Sequence[bytes], *, wait_s: float = EXCHANGE_S
) -> list[bytes] | None:
    """Send one message to a ROUTER of somebody else; give its answer, or None after ``wait_s``.

    Raises:
        ConfigError: the address is none.
    """
    with zmq.Context(io_threads=1) as context, context.socket(zmq.DEALER) as asking:
        asking.set(zmq.LINGER, 0)
        asking.set(zmq.RCVTIMEO, int(wait_s * 1000))
        asking.set(zmq.IPV6, int("[" in address))
        try:
            asking.connect(address)
            asking.send_multipart(frames)
            return asking.recv_multipart()
        except zmq.Again:
            return None
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot connect to {address}: {error.strerror}") from None


def _check_curve(connection: Connection) -> None:
    """Refuse encryption keys that do not belong together: clients would hang, not fail.

    Raises:
        ConfigError: it says what is wrong with the keys.
    """
    if connection.curve is None:
        return
    if not zmq.has("curve"):
        raise ConfigError("the connection file asks for encryption, and this libzmq has no CURVE")
    try:
        public_key = zmq.curve_public(connection.curve.secret_key)
    except zmq.ZMQError:
        raise ConfigError("curve_secretkey is no Z85 key of 40 characters") from None
    if public_key != connection.curve.public_key:
        raise ConfigError("curve_publickey is not the public key of curve_secretkey")


def _bind(bound: ZmqSocket, channel: SocketID, connection: Connection, deadline_s: float) -> int:
    """Bind one socket; give its port.

    Raises:
        ConfigError: the address is still taken at the deadline, or cannot be used.
    """
    attempt = _bind_ipc if connection.transport == "ipc" else _bind_tcp
    while True:
        try:
            return attempt(bound, channel, connection)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            if in_use and connection.ports[channel] and time.monotonic() < deadline_s:
                time.sleep(_BIND_PAUSE_S)
                continue
            where = connection.endpoint(channel)
            why = os.strerror(error.errno or 0)
            raise ConfigError(f"cannot bind the {channel} channel to {where}: {why}") from None


def _bind_tcp(bound: ZmqSocket, channel: SocketID, connection: Connection) -> int:
    """Bind to the channel's port, or to one that the operating system chooses."""
    try:
        bound.bind(connection.endpoint(channel))
    except zmq.ZMQError as error:
        raise OSError(error.errno, error.strerror) from None
    endpoint = bytes(bound.get(zmq.LAST_ENDPOINT))
    return int(endpoint.rpartition(b":")[2])


def _bind_ipc(bound: ZmqSocket, channel: SocketID, connection: Connection) -> int:
    """Bind to the channel's path, or to the first that is free, for this user alone."""
    port = connection.ports[channel] or _free_ipc_port(connection)
    file = f"{connection.ip}-{port}"
    _remove_stale(file)
    # The outputs on iopub are not encrypted: other users must not connect, not for a moment.
    umask = os.umask(0o177)
    try:
        bound.bind(f"ipc://{file}")
    except zmq.ZMQError as error:
        raise OSError(error.errno, error.strerror) from None
    finally:
        os.umask(umask)
    return port


def _free_ipc_port(connection: Connection) -> int:
    port = 1
    while port in connection.ports.values() or os.path.exists(  # noqa: PTH110
        f"{connection.ip}-{port}"
    ):
        port += 1
    return port


def _remove_stale(file: str) -> None:
    """Remove a socket that nobody listens on; zmq would remove whatever is there.

    Raises:
        OSError: another process listens on it, or it is no socket.
    """
    try:
        mode = os.lstat(file).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_BIND_PAUSE_S)
        try:
            probe.connect(file)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)  # noqa: PTH108
            return
        except FileNotFoundError:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
