"""ZMTP 3.1, as a ROUTER speaks it to one peer: bytes in, messages and answers out.

The protocol of zmq (https://rfc.zeromq.org/spec/37/): a greeting of 64 bytes, one READY command of
each side, then frames. Only the NULL mechanism, and nothing older than ZMTP 3.0 (libzmq 4, 2013).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MORE, _LONG, _COMMAND = 1, 2, 4
_FLAGS = _MORE | _LONG | _COMMAND
_SHORT_HEAD, _LONG_HEAD = 2, 9
"""Bytes before the body of a frame: flags, and a size of one or eight bytes."""
_LONGEST_SHORT = 255
_LONGEST_COMMAND = 1 << 16
"""Commands that we know have some bytes; nobody shall make us keep more."""

_SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
_SIGNATURE_ENDS = 9
_MAJOR = 10
_MECHANISM = slice(12, 32)
_NULL = b"NULL".ljust(20, b"\0")
GREETING = _SIGNATURE + b"\x03\x01" + _NULL + bytes(32)
"""The first bytes of either side: signature, version 3.1, mechanism, "no server", a filler."""
_PARTNERS = (b"REQ", b"DEALER", b"ROUTER")
"""The types of socket that may talk to a ROUTER."""


def encode(frames: Sequence[bytes | memoryview]) -> bytes:
    """Give the bytes of one message."""
    parts: list[bytes | memoryview] = []
    last = len(frames) - 1
    for at, body in enumerate(frames):
        flags, size = _MORE if at < last else 0, len(body)
        if size <= _LONGEST_SHORT:
            parts.append(bytes((flags, size)))
        else:
            parts.append(bytes((flags | _LONG,)) + size.to_bytes(8, "big"))
        parts.append(body)
    return b"".join(parts)


class Peer:
    """One client, from its first byte on.

    Attributes:
        identity: what it calls itself; empty for one that has no name.
        is_ready: its handshake is done: it may be answered.
    """

    def __init__(self, max_frame_bytes: int, max_message_bytes: int) -> None:
        """Expect the greeting.

        Args:
            max_frame_bytes: a larger frame is an error.
            max_message_bytes: so are frames of one message that are larger together.
        """
        self.identity = b""
        self.is_ready = False
        self._max_frame_bytes = max_frame_bytes
        self._max_message_bytes = max_message_bytes
        self._is_greeted = False
        self._rest = bytearray()
        self._wanted = 0
        """So many bytes have to be there before there is anything to do."""
        self._frames: list[bytes] = []
        """Of the message whose last frame has not come."""
        self._size = 0
        self._answers: list[bytes] = []

    def feed(self, data: bytes) -> list[list[bytes]]:
        """Take what has come; give the messages that are whole by it.

        Raises:
            ClientError: the peer speaks something else, or sends too much; it is to be left.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            whole, self._rest = self._rest, bytearray()
            return self._read(memoryview(whole))  # Perhaps large: it is copied once.
        return self._read(data)

    def answers(self) -> bytes:
        """Give what is to be sent back by itself: our READY, the answers to pings."""
        answers = b"".join(self._answers)
        self._answers.clear()
        return answers

    def _read(self, data: bytes | memoryview) -> list[list[bytes]]:
        """Take the greeting, and what comes behind it."""
        if not self._is_greeted:
            _check_greeting(bytes(data[: len(GREETING)]))
            if len(data) < len(GREETING):
                return self._keep(data, len(GREETING))
            self._is_greeted = True
            self._answers.append(_command(b"READY", _properties(b"ROUTER")))
            data = data[len(GREETING) :]
        return self._split(data)

    def _keep(self, data: bytes | memoryview, wanted: int) -> list[list[bytes]]:
        """Wait until so much of ``data`` is there."""
        self._rest += data
        self._wanted = wanted
        return []

    def _split(self, data: bytes | memoryview) -> list[list[bytes]]:
        """Take the frames out of ``data``; keep what is no whole one."""
        messages: list[list[bytes]] = []
        at, end = 0, len(data)
        while end - at >= _SHORT_HEAD:
            flags = data[at]
            if flags & ~_FLAGS or flags & (_COMMAND | _MORE) == _COMMAND | _MORE:
                raise ClientError(f"ZMTP has no frame with the flags {flags:#04x}")
            if flags & _LONG:
                if end - at < _LONG_HEAD:
                    break
                start = at + _LONG_HEAD
                size = int.from_bytes(data[at + 1 : start], "big")
                self._check_size(size, flags)
            else:
                start = at + _SHORT_HEAD
                size = data[at + 1]
            after = start + size
            if end < after:
                self._keep(data[at:], after - at)
                return messages
            self._take(bytes(data[start:after]), flags, messages)
            at = after
        if at < end:
            is_long = data[at] & _LONG
            self._keep(data[at:], _LONG_HEAD if is_long else _SHORT_HEAD)
        return messages

    def _check_size(self, size: int, flags: int) -> None:
        """Refuse a frame before its body comes.

        Raises:
            ClientError: it is too large.
        """
        limit = _LONGEST_COMMAND if flags & _COMMAND else self._max_frame_bytes
        if size > limit:
            raise ClientError(f"a frame of {size} bytes, where {limit} are allowed")

    def _take(self, body: bytes, flags: int, messages: list[list[bytes]]) -> None:
        """Take one frame."""
        if flags & _COMMAND:
            self._obey(body)
            return
        if not self.is_ready:
            raise ClientError("a message before the READY command")
        # An empty frame costs memory, too.
        self._size += len(body) + 1
        if self._size > self._max_message_bytes:
            raise ClientError(f"a message of more than {self._max_message_bytes} bytes")
        self._frames.append(body)
        if not flags & _MORE:
            messages.append(self._frames)
            self._frames, self._size = [], 0

    def _obey(self, body: bytes) -> None:
        """Do what a command says; those that we do not know say nothing to us."""
        size = body[0] if body else 0
        name, data = body[1 : size + 1], body[size + 1 :]
        if name == b"READY" and not self.is_ready:
            self._shake_hands(dict(_read_properties(data)))
        elif name == b"ERROR":
            raise ClientError("the peer refuses to talk with a ROUTER")
        elif name == b"PING":  # Two bytes of a time to live, then a context to be sent back.
            self._answers.append(_command(b"PONG", data[2:18]))

    def _shake_hands(self, properties: dict[bytes, bytes]) -> None:
        kind = properties.get(b"socket-type", b"")
        if kind not in _PARTNERS:
            raise ClientError(f"a socket of type {kind[:20]!r} cannot talk with a ROUTER")
        identity = properties.get(b"identity", b"")
        # Names that begin with zero are given by a ROUTER to those who have none.
        self.identity = b"" if identity[:1] == b"\0" else identity[:_LONGEST_SHORT]
        self.is_ready = True


def _check_greeting(data: bytes) -> None:
    """Refuse a peer by the first bytes that tell.

    Raises:
        ClientError: it is no zmq, or an old one, or it wants encryption.
    """
    is_zmq = data[:1] == b"\xff" and data[_SIGNATURE_ENDS : _SIGNATURE_ENDS + 1] in (b"", b"\x7f")
    if not is_zmq:
        raise ClientError("what connects is no zmq socket")
    if len(data) > _MAJOR and data[_MAJOR] < GREETING[_MAJOR]:
        raise ClientError("the peer's zmq is older than ZMTP 3 (libzmq 4.0)")
    mechanism = data[_MECHANISM]
    if len(mechanism) == len(_NULL) and mechanism != _NULL:
        name = mechanism.rstrip(b"\0")
        raise ClientError(f"the peer wants the mechanism {name!r}; this kernel has no encryption")


def _command(name: bytes, data: bytes) -> bytes:
    body = bytes((len(name),)) + name + data
    return bytes((_COMMAND, len(body))) + body


def _properties(socket_type: bytes) -> bytes:
    pairs = ((b"Socket-Type", socket_type), (b"Identity", b""))
    return b"".join(
        bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value for name, value in pairs
    )


def _read_properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read names, in lower case, and values.

    Raises:
        ClientError: they are cut short.
    """
    at = 0
    while at < len(data):
        middle = at + 1 + data[at]
        value = middle + 4
        end = value + int.from_bytes(data[middle:value], "big")
        if value > len(data) or end > len(data):
            raise ClientError("the metadata of a READY command are cut short")
        yield data[at + 1 : middle].lower(), data[value:end]
        at = end
