"""Lane messages as bytes: framing and msgpack, without any file handle.

A frame is ``message size (u32) | buffer count (u32) | buffer sizes (u64 each) | message |
buffers``, in network byte order. Buffers stand beside the message so that megabytes are neither
packed nor unpacked.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

from unstuck.errors import WireError
from unstuck.protocol import Finished, FromCopy, Publish, Run, ToBroker, ToCopy, ToWorker

MAX_MESSAGE_BYTES = 1 << 30
"""What is beyond this is refused: a size read from rubbish must not allocate the machine."""
MAX_BUFFERS = 1 << 16

_HEAD = struct.Struct("!II")
_encoder = msgspec.msgpack.Encoder()

M = TypeVar("M")


def encode(message: ToWorker | ToBroker | ToCopy | FromCopy) -> list[bytes | memoryview]:
    """Give the chunks of one frame, ready for ``sendmsg``.

    Raises:
        WireError: the message is larger than a frame may be.
    """
    buffers: list[bytes | memoryview] = []
    if isinstance(message, Publish | Finished | Run) and message.buffers:
        buffers = [memoryview(buffer).cast("B") for buffer in message.buffers]
        message = msgspec.structs.replace(message, buffers=[])
    body = _encoder.encode(message)
    buffer_bytes = sum(map(len, buffers))
    if max(len(body), buffer_bytes) > MAX_MESSAGE_BYTES or len(buffers) > MAX_BUFFERS:
        raise WireError(
            f"a lane message of {len(body)} bytes with {len(buffers)} buffers of {buffer_bytes} "
            f"bytes is larger than {MAX_MESSAGE_BYTES} bytes or {MAX_BUFFERS} buffers"
        )
    if not buffers:
        return [_HEAD.pack(len(body), 0) + body]
    sizes = struct.pack(f"!{len(buffers)}Q", *map(len, buffers))
    return [_HEAD.pack(len(body), len(buffers)) + sizes + body, *buffers]


class Decoder(Generic[M]):
    """Turn the bytes of one lane into messages, however they are cut.

    Threads: none; one reader owns it.
    """

    def __init__(self, union: object) -> None:
        """Decode messages of ``union``: `ToWorker`, `ToBroker`, `ToCopy` or `FromCopy`."""
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union)
        self._pending = bytearray()
        self._wanted = _HEAD.size

    @property
    def missing_bytes(self) -> int:
        """Give how many bytes more the next message needs, as far as they are known."""
        return self._wanted - len(self._pending)

    def feed(self, data: bytes | memoryview) -> list[M]:
        """Take the next bytes; give the messages that are complete.

        Raises:
            WireError: the bytes are no frame, or no message of the union: the lane is of no use.
        """
        pending = self._pending
        pending += data
        if len(pending) < self._wanted:
            return []
        messages: list[M] = []
        start, end = 0, len(pending)
        view = memoryview(pending)
        try:
            while True:
                size, message = self._take(view, start, end)
                if message is None:
                    self._wanted = size
                    break
                messages.append(message)
                start += size
        finally:
            view.release()
        del pending[:start]
        return messages

    def _take(self, view: memoryview, start: int, end: int) -> tuple[int, M | None]:
        """Decode the frame at ``start``: (its size, message), or (bytes needed, None)."""
        have = end - start
        if have < _HEAD.size:
            return _HEAD.size, None
        body_size, count = _HEAD.unpack_from(view, start)
        if body_size > MAX_MESSAGE_BYTES or count > MAX_BUFFERS:
            raise WireError(f"no lane message starts with {bytes(view[start : start + 8])!r}")
        body = _HEAD.size + 8 * count
        if have < body + body_size:
            return body + body_size, None
        total = body + body_size
        sizes: tuple[int, ...] = ()
        if count:
            sizes = struct.unpack_from(f"!{count}Q", view, start + _HEAD.size)
            if sum(sizes) > MAX_MESSAGE_BYTES:
                raise WireError(
                    f"buffers of {sum(sizes)} bytes are larger than {MAX_MESSAGE_BYTES}"
                )
            total += sum(sizes)
            if have < total:
                return total, None
        try:
            message = self._decoder.decode(view[start + body : start + body + body_size])
        except (ValueError, RecursionError) as error:
            # MsgspecError, which is a ValueError, or bad UTF-8 or too deep nesting in a setting.
            raise WireError(f"malformed lane message: {error}") from error
        if count:
            if not isinstance(message, Publish | Finished | Run):
                raise WireError(f"{type(message).__name__} carries no buffers")
            at = start + body + body_size
            for size in sizes:
                message.buffers.append(bytes(view[at : at + size]))
                at += size
        return total, message
