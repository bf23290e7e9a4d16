"""The kernel's five sockets: how each is made, bound and closed.

Four are zmq's (`unstuck_broker.zmqchannel`). Control is a `unstuck_broker.router.Router` where that
can be: for TCP at a numeric address, without encryption, on Linux.

Threads: one, the broker's loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import zmq
from zmq.backend import Socket as ZmqSocket  # Without the Python layer over each call.

from unstuck.errors import ConfigError
from unstuck.typing import SocketID
from unstuck_broker.zmqchannel import InFlight, ZmqChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unstuck_broker.connection import Connection
    from unstuck_broker.router import Router


MAX_FRAME_BYTES = 1 << 30
"""zmq drops the connection of a client that sends a larger frame."""
IOPUB_MESSAGES = 1000
"""How many messages wait for one subscriber before `Sockets.send` on iopub says no."""
REPLY_MESSAGES = 100_000
"""How many replies wait for one client: a ROUTER drops what is beyond without a word."""
BIND_RETRY_S = 0.1
"""The kernel that had a port before may be in its last milliseconds."""
EXCHANGE_S = 10.0
"""How long a launcher may take to acknowledge the ports of a kernel."""

_TERM_S = 1.0
"""How much longer than its sockets linger zmq may take to end."""
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
        self._channels: dict[SocketID, ZmqChannel | Router] = {}
        self._ipc_files: list[str] = []
        self._in_flight = InFlight()

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
                attempt = sockets._attempt(channel, max_frame_bytes)
                port = _bind(attempt, channel, sockets.connection, deadline_s)
                ports = {**sockets.connection.ports, channel: port}
                sockets.connection = sockets.connection.with_ports(ports)
                if connection.transport == "ipc":
                    sockets._ipc_files.append(f"{connection.ip}-{port}")
        except BaseException:
            sockets.close(linger_ms=0)
            raise
        return sockets

    def _attempt(self, channel: SocketID, max_frame_bytes: int) -> Callable[[], int]:
        """Give what binds a channel and tells its port; it may be tried several times."""
        connection = self.connection
        if channel is SocketID.control and _is_plain(connection):
            return lambda: self._route(channel, max_frame_bytes)
        made = self._make(channel, max_frame_bytes)
        bind = _bind_ipc if connection.transport == "ipc" else _bind_tcp
        return lambda: bind(made, channel, connection)

    def _route(self, channel: SocketID, max_frame_bytes: int) -> int:
        """Make and bind a channel that does without zmq; give its port."""
        from unstuck_broker.router import Router  # noqa: PLC0415 - it needs epoll: Linux only

        address = self.connection.ip, self.connection.ports[channel]
        self._channels[channel] = router = Router(address, max_frame_bytes)
        return router.port

    def _make(self, channel: SocketID, max_frame_bytes: int) -> ZmqSocket:
        """Make the zmq socket of a channel, ready to be bound."""
        iopub = channel is SocketID.iopub
        made = ZmqSocket(self._context, zmq.XPUB if iopub else zmq.ROUTER)
        self._channels[channel] = ZmqChannel(made, self._in_flight)
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
        """Give the descriptor to wait on: `pending` says what it may not tell."""
        return self._channels[channel].fileno()

    def pending(self, channel: SocketID) -> bool:
        """Say whether a message waits that the descriptor may not tell of."""
        return self._channels[channel].pending()

    def receive(self, channel: SocketID) -> list[bytes | memoryview] | None:
        """Take one whole multipart message, or None when there is none."""
        return self._channels[channel].receive()

    def receive_subscription(self) -> bytes | None:
        r"""Take a subscriber's ``b"\x01topic"`` (began) or ``b"\x00topic"`` (ended) on iopub."""
        while (frames := self.receive(SocketID.iopub)) is not None:
            # An XSUB client may send messages of its own upstream: they mean nothing to us.
            if len(frames) == 1 and frames[0][:1] in (b"\x00", b"\x01"):
                return bytes(frames[0])
        return None

    def send(self, channel: SocketID, frames: Sequence[bytes | memoryview]) -> bool:
        """Send a message; False, and nothing is sent, when the channel does not take it.

        On iopub a subscriber is `IOPUB_MESSAGES` behind: try again when the channel's descriptor
        fires, or after a few milliseconds. On stdin the client has not connected yet, or is gone.
        A reply on other channels to a client that is gone is dropped.
        """
        return self._channels[channel].send(frames)

    @property
    def in_flight_bytes(self) -> int:
        """Large frames that zmq still sends from our memory."""
        return self._in_flight.size_bytes

    def set_nodrop(self, nodrop: bool) -> None:
        """Choose for a full iopub: refuse messages (the start), or drop them for who is behind."""
        iopub = self._channels[SocketID.iopub]
        assert isinstance(iopub, ZmqChannel)
        iopub.socket.set(zmq.XPUB_NODROP, int(nodrop))

    def echo_heartbeat(self) -> None:
        """Send heartbeats back where they came from, so many that others still get their turn."""
        for _ in range(_HEARTBEATS_AT_ONCE):
            frames = self.receive(SocketID.heartbeat)
            if frames is None:
                return
            self.send(SocketID.heartbeat, frames)

    def close(self, *, linger_ms: int = 500) -> None:
        """Close all sockets; what was sent has ``linger_ms`` to leave. Closing twice is fine."""
        for closing in self._channels.values():
            closing.close(linger_ms)
        self._channels.clear()
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


def _is_plain(connection: Connection) -> bool:
    """Tell whether a channel can do without zmq: what zmq makes of a name is its own affair."""
    if sys.platform != "linux" or connection.transport != "tcp" or connection.curve is not None:
        return False
    family = socket.AF_INET6 if ":" in connection.ip else socket.AF_INET
    try:
        socket.inet_pton(family, connection.ip)
    except OSError:
        return False
    return True


def _bind(
    attempt: Callable[[], int], channel: SocketID, connection: Connection, deadline_s: float
) -> int:
    """Bind one socket; give its port.

    Raises:
        ConfigError: the address is still taken at the deadline, or cannot be used.
    """
    while True:
        try:
            return attempt()
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
