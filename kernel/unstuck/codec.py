"""Lane messages as bytes: framing and msgpack, without any file handle.

A frame is ``message size (u32) | buffer count (u32) | buffer sizes (u64 each) | message |
buffers``, in network byte order. Buffers stand beside the message so that megabytes are neither
packed nor unpacked.
"""

from __future__ import annotations

import mmap
import struct
from typing import Generic, TypeVar

import msgspec

from unstuck.errors import WireError
from unstuck.protocol import Finished, FromCopy, Publish, Run, ToBroker, ToCopy, ToWorker

MAX_MESSAGE_BYTES = 1 << 30
"""What is beyond this is refused: a size read from rubbish must not allocate the machine."""
MAX_BUFFERS = 1 << 16
LARGE_BYTES = 1 << 22
"""From here on a buffer has pages of its own."""

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


class Buffers:
    """The buffers of one message while their bytes come in: each goes to its place at once."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        """Wait for buffers of these sizes, in bytes."""
        self._sizes = sizes
        self._whole: list[memoryview] = []
        self._block = memoryview(b"")
        self._at = 0
        self.missing_bytes = sum(sizes)

    def take(self, data: memoryview) -> int:
        """Take what belongs here from the head of ``data``; give how many bytes that was."""
        taken = 0
        while len(self._whole) < len(self._sizes):
            size = self._sizes[len(self._whole)]
            if self._at == 0:
                self._block = _allocate(size)
            count = min(size - self._at, len(data) - taken)
            self._block[self._at : self._at + count] = data[taken : taken + count]
            self._at += count
            taken += count
            if self._at < size:
                break
            self._whole.append(self._block.toreadonly())
            self._at = 0
        self.missing_bytes -= taken
        return taken

    def give(self) -> list[memoryview]:
        """Give the buffers, once all bytes are there."""
        return self._whole


def _allocate(size: int) -> memoryview:
    """Give memory for one buffer.

    Raises:
        WireError: there is not so much.
    """
    try:
        if size < LARGE_BYTES:
            return memoryview(bytearray(size))
        # Pages come as they are written, not all at once before the first byte: that would keep
        # the broker from control for 0.6 ms a megabyte. Large pages make it 0.25 ms in all.
        # Private: a forked copy must not share them.
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            block.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(block)
    except (MemoryError, OSError) as error:
        raise WireError(f"no memory for a buffer of {size} bytes: {error}") from error


class Decoder(Generic[M]):
    """Turn the bytes of one lane into messages, however they are cut.

    Threads: none; one reader owns it.
    """

    def __init__(self, union: object) -> None:
        """Decode messages of ``union``: `ToWorker`, `ToBroker`, `ToCopy` or `FromCopy`."""
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union)
        self._pending = bytearray()
        self._wanted = _HEAD.size
        self._message: M | None = None
        self._buffers = Buffers(())
        """Of `_message`, while there is one."""

    @property
    def missing_bytes(self) -> int:
        """Give how many bytes more the next message needs, as far as they are known."""
        if self._message is not None:
            return self._buffers.missing_bytes
        return self._wanted - len(self._pending)

    def feed(self, data: bytes | memoryview) -> list[M]:
        """Take the next bytes; give the messages that are complete.

        Raises:
            WireError: the bytes are no frame, or no message of the union: the lane is of no use.
        """
        messages: list[M] = []
        if self._message is not None:
            data = memoryview(data)[self._fill(memoryview(data), messages) :]
        pending = self._pending
        pending += data
        if len(pending) < self._wanted:
            return messages
        start, end = 0, len(pending)
        view = memoryview(pending)
        try:
            while size := self._take(view, start, end, messages):
                start += size
        finally:
            view.release()
        del pending[:start]
        return messages

    def _take(self, view: memoryview, start: int, end: int, messages: list[M]) -> int:
        """Decode the frame at ``start``; give the bytes taken, 0 when it is not whole yet."""
        have = end - start
        self._wanted = _HEAD.size
        if have < self._wanted:
            return 0
        body_size, count = _HEAD.unpack_from(view, start)
        if body_size > MAX_MESSAGE_BYTES or count > MAX_BUFFERS:
            raise WireError(f"no lane message starts with {bytes(view[start : start + 8])!r}")
        body = _HEAD.size + 8 * count
        size = int(body + body_size)
        if have < size:
            self._wanted = size
            return 0
        try:
            message = self._decoder.decode(view[start + body : start + size])
        except (ValueError, RecursionError) as error:
            # MsgspecError, which is a ValueError, or bad UTF-8 or too deep nesting in a setting.
            raise WireError(f"malformed lane message: {error}") from error
        if not count:
            messages.append(message)
            return size
        self._expect(message, struct.unpack_from(f"!{count}Q", view, start + _HEAD.size))
        return size + self._fill(view[start + size : end], messages)

    def _expect(self, message: M, sizes: tuple[int, ...]) -> None:
        """Begin a message with buffers of ``sizes``."""
        if sum(sizes) > MAX_MESSAGE_BYTES:
            raise WireError(f"buffers of {sum(sizes)} bytes are larger than {MAX_MESSAGE_BYTES}")
        if not isinstance(message, Publish | Finished | Run):
            raise WireError(f"{type(message).__name__} carries no buffers")
        self._message = message
        self._buffers = Buffers(sizes)

    def _fill(self, data: memoryview, messages: list[M]) -> int:
        """Take bytes of the buffers, and give the message once they are whole."""
        with data:
            message = self._message
            assert isinstance(message, Publish | Finished | Run)
            taken = self._buffers.take(data)
            if not self._buffers.missing_bytes:
                message.buffers.extend(self._buffers.give())
                messages.append(message)
                self._message = None
            return taken
