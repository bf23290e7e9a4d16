"""Jupyter's wire format: multipart frames to verified requests, and messages to signed frames.

A message is ``identities | <IDS|MSG> | signature | header | parent_header | metadata | content |
buffers``; the signature is a hex HMAC over the four JSON frames. Past this module nobody looks into
a header by name.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, cast

import msgspec

from unstuck import kernel_protocol_version
from unstuck.errors import ClientError, ConfigError
from unstuck.typing import AnyMsgType, BrokerMsgType, MsgType, SocketID

if TYPE_CHECKING:
    from collections.abc import Sequence

DELIMITER = b"<IDS|MSG>"
REPLAY_HISTORY = 1 << 16
"""How many signatures are remembered, as jupyter_client does."""
MAX_REPAIR_BYTES = 16 << 20
"""Larger frames must be right as they are: control would wait while one is repaired."""

_JSON_FRAMES = ("header", "parent_header", "metadata", "content")
_KINDS: dict[str, AnyMsgType] = {str(kind): kind for kind in (*MsgType, *BrokerMsgType)}
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode_json = msgspec.json.Encoder().encode


class Header(msgspec.Struct, frozen=True, gc=False):
    """The header of a client's message; fields that we do not know are dropped."""

    msg_id: str
    msg_type: str
    session: str = ""
    username: str = ""
    date: str = ""
    version: str = ""
    subshell_id: str | None = None
    run_mode: Any = None
    """Whatever the client wrote: `unstuck.runmode.get_run_mode` judges it."""


_header_decoder = msgspec.json.Decoder(Header)


class Request(msgspec.Struct, frozen=True):
    """One verified message of a client. The JSON frames are objects, in valid UTF-8."""

    channel: SocketID
    idents: tuple[bytes, ...]
    header: Header
    kind: AnyMsgType | None
    """None for a type that is no request of ours (`input_reply` too): see ``header.msg_type``."""
    header_json: bytes
    parent_json: bytes
    metadata_json: bytes
    content_json: bytes
    buffers: tuple[bytes | memoryview, ...]


class Wire:
    """The key, the replay history and the message counter of one kernel.

    Threads: none; the broker's loop owns it.
    """

    def __init__(
        self, key: bytes, signature_scheme: str, session: str, username: str, pid: int
    ) -> None:
        """Sign and verify with ``key``; an empty one neither signs nor verifies.

        Raises:
            ConfigError: no signature scheme has this name.
        """
        signer = make_signer(key, signature_scheme)
        self._signer = signer if key else None
        self._seen: set[bytes] = set()
        self._seen_before: set[bytes] = set()
        self._count = 0
        self._prefix = f"{session}_{pid}_"
        self._head = b'{"msg_id":' + _encode_json(self._prefix)[:-1]
        self._middle = (
            b',"username":' + _encode_json(username) + b',"session":' + _encode_json(session)
        ) + b',"date":'
        self._tail = b',"version":' + _encode_json(kernel_protocol_version) + b"}"

    def parse(self, channel: SocketID, frames: Sequence[bytes | memoryview]) -> Request:
        """Verify one multipart message of a client.

        Args:
            channel: where it came from.
            frames: routing identities (0 or more), the delimiter, the signature, 4 JSON frames,
                buffers (0 or more).

        Raises:
            ClientError: it is malformed, badly signed or replayed; the text says which.
        """
        try:
            at = frames.index(DELIMITER)
        except ValueError:
            raise ClientError(
                f"no <IDS|MSG> delimiter in {len(frames)} frames of {sum(map(len, frames))} bytes"
            ) from None
        if len(frames) < at + 6:
            raise ClientError(
                f"{len(frames) - at - 1} frames after the delimiter: the signature, "
                f"{', '.join(_JSON_FRAMES)} are needed"
            )
        plain = [bytes(frame) for frame in frames[: at + 6]]
        signed = plain[at + 2 :]
        if self._signer is not None:
            self._verify(plain[at + 1], signed)
        header, header_json = _parse_header(signed[0])
        return Request(
            channel=channel,
            idents=tuple(plain[:at]),
            header=header,
            kind=_KINDS.get(header.msg_type),
            header_json=header_json,
            parent_json=_check_object("parent_header", signed[1]),
            metadata_json=_check_object("metadata", signed[2]),
            content_json=_check_object("content", signed[3]),
            buffers=tuple(frames[at + 6 :]),
        )

    def serialize(
        self,
        idents: Sequence[bytes],
        msg_type: str,
        content: bytes,
        *,
        date: str,
        parent_header: bytes = b"{}",
        metadata: bytes = b"{}",
        buffers: Sequence[bytes | memoryview] = (),
    ) -> list[bytes | memoryview]:
        """Give the frames of one signed message, with a header of its own.

        Args:
            idents: routing identities, or the topic on iopub.
            msg_type: the message's type.
            content: a JSON object.
            date: the time of sending, in ISO 8601.
            parent_header: the header of the request that this answers, a JSON object.
            metadata: a JSON object.
            buffers: sent behind the message as they are, not signed.
        """
        number = self._count
        self._count = number + 1
        header = b'%b%d","msg_type":%b%b%b%b' % (
            self._head,
            number,
            _encode_json(msg_type),
            self._middle,
            _encode_json(date),
            self._tail,
        )
        signed = (header, parent_header, metadata, content)
        return [*idents, DELIMITER, self._sign(signed), *signed, *buffers]

    @property
    def last_msg_id(self) -> str:
        """Give the id of the message that was serialized last."""
        return f"{self._prefix}{self._count - 1}"

    def _sign(self, signed: Sequence[bytes]) -> bytes:
        if self._signer is None:
            return b""
        signer = self._signer.copy()
        for frame in signed:
            signer.update(frame)
        return signer.hexdigest().encode()

    def _verify(self, signature: bytes, signed: Sequence[bytes]) -> None:
        """Refuse a message that is not signed with our key, or that was here before.

        Raises:
            ClientError: it says which of the two.
        """
        if not signature:
            raise ClientError("the message is not signed")
        if not hmac.compare_digest(signature, self._sign(signed)):
            raise ClientError(f"bad signature {_preview(signature)}")
        if signature in self._seen or signature in self._seen_before:
            raise ClientError(
                f"replayed message: its signature {_preview(signature)} was here before"
            )
        # Only verified signatures are remembered: rubbish must not push real ones out.
        self._seen.add(signature)
        if len(self._seen) >= REPLAY_HISTORY // 2:
            self._seen_before, self._seen = self._seen, set()


def make_signer(key: bytes, scheme: str) -> hmac.HMAC:
    """Start an HMAC for a scheme like ``hmac-sha256``.

    Raises:
        ConfigError: no such scheme, or its hash has no fixed size.
    """
    prefix, _, name = scheme.partition("-")
    # The shake hashes have no size of their own, so HMAC is not defined on them.
    if prefix == "hmac" and name in hashlib.algorithms_guaranteed and "shake" not in name:
        try:
            return hmac.new(key, digestmod=name)
        except ValueError as error:  # OpenSSL in FIPS mode refuses some.
            raise ConfigError(f"signature scheme {scheme!r} cannot be used here: {error}") from None
    raise ConfigError(f"unknown signature scheme {scheme!r}: use hmac-sha256")


def _parse_header(frame: bytes) -> tuple[Header, bytes]:
    """Read a header; give it together with its JSON in valid UTF-8.

    Raises:
        ClientError: no JSON object, or a field that is needed is missing or no string.
    """
    try:
        header = _header_decoder.decode(frame)
        _refuse_bad_text(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        frame = _check_object("header", frame)
        return _parse_odd_header(frame), frame
    return header, frame


def _parse_odd_header(frame: bytes) -> Header:
    """Read the header of an old or sloppy client: dates as integers, null for what is not known.

    Raises:
        ClientError: a field that is needed is missing or no string.
    """
    fields = cast("dict[str, Any]", _decode_any("header", frame))
    for name in ("msg_id", "msg_type"):
        if name not in fields:
            raise ClientError(f"the header has no {name}")
        if not isinstance(fields[name], str):
            raise ClientError(f"the header's {name} is no string but {_preview(fields[name])}")
    subshell = fields.get("subshell_id")
    if not isinstance(subshell, str | None):
        raise ClientError(f"the header's subshell_id is no string but {_preview(subshell)}")
    texts: dict[str, str] = {}
    for name in ("session", "username", "date", "version"):
        value = fields.get(name)
        texts[name] = str(value) if isinstance(value, str | int | float) else ""
    return Header(
        msg_id=fields["msg_id"],
        msg_type=fields["msg_type"],
        subshell_id=subshell,
        run_mode=fields.get("run_mode"),
        **texts,
    )


def _check_object(name: str, frame: bytes) -> bytes:
    """Give a JSON object as it came, or repaired where jupyter_client would accept it.

    Raises:
        ClientError: no JSON, or no object; ``name`` and the reason are in the text.
    """
    if frame == b"{}":
        return frame
    try:
        _object_decoder.decode(frame)
        _refuse_bad_text(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if len(frame) > MAX_REPAIR_BYTES:
            raise ClientError(f"the {name} {_preview(frame)} cannot be read: {error}") from None
        return _repair(name, frame)
    return frame


def _refuse_bad_text(frame: bytes) -> None:
    """Refuse bad text in valid JSON: msgspec looks only into the strings that it keeps.

    Raises:
        UnicodeDecodeError: bad UTF-8.
        msgspec.MsgspecError: half a surrogate pair.
    """
    if not frame.isascii():
        frame.decode()
    if b"\\ud" in frame or b"\\uD" in frame:
        msgspec.json.decode(frame)


def _decode_any(name: str, frame: bytes) -> object:
    """Decode JSON as Python's own decoder does, bad UTF-8 replaced.

    Raises:
        ClientError: it is no JSON.
    """
    text = frame.decode("utf-8", "replace")
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        why = "neither JSON nor UTF-8" if "\ufffd" in text else "no JSON"
        raise ClientError(f"the {name} {_preview(frame)} is {why}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ClientError(f"the {name} {_preview(frame)} cannot be read: {error}") from None


def _repair(name: str, frame: bytes) -> bytes:
    """Write an object again without what strict readers refuse: bad UTF-8, lone surrogates, NaN.

    JavaScript sends half an emoji as a lone surrogate, and jupyter_client accepts all three, so a
    cell must not be lost for it: the text has U+FFFD there, the number is null.

    Raises:
        ClientError: no JSON, or no object.
    """
    value = _decode_any(name, frame)
    if value is None:
        return b"{}"
    if not isinstance(value, dict):
        raise ClientError(f"the {name} {_preview(frame)} is no JSON object")
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise ClientError(f"the {name} {_preview(frame)} cannot be read: {error}") from None
    # UTF-16 joins the halves of a pair before the lone ones are replaced.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _no_number(_name: str) -> None:
    """Read NaN and the infinities, which are no JSON, as null."""


def _preview(value: object) -> str:
    """Show the start of a client's value, short enough for a log line."""
    if not isinstance(value, bytes | str | int | float | None):
        return type(value).__name__
    text = repr(value[:60] if isinstance(value, bytes | str) else value)
    return text if len(text) <= 70 else text[:70] + "..."
