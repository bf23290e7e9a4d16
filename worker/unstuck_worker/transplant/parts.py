"""A carried session as bytes: a start, parts with checksums, an end; for sockets and files alike.

A part is ``kind (u8) | 3 zero bytes | meta size (u32) | data size (u64) | crc of data (u32) | crc
of the head so far and of meta (u32) | meta | data``, in network byte order. Meta is msgpack. The
data of a group is its pickle and, behind it, its buffers.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import TYPE_CHECKING

import msgspec

from unstuck.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = b"\x89unstuck\r\n\x1a\n\x00"
FORMAT = 1
START = struct.Struct(f"!{len(MAGIC)}sI")
_HEAD = struct.Struct("!B3xIQI")
_CRC = struct.Struct("!I")
HEAD_BYTES = _HEAD.size + _CRC.size
MAX_META_BYTES = 1 << 26
MAPPED_BYTES = 1 << 20


class Damaged(KernelError):
    """Bytes that are no carried session, or not all of it."""


class Header(msgspec.Struct, frozen=True, tag="header", array_like=True):
    """What is told about a session."""

    unstuck: str
    python: str
    machine: str
    saved_at: str
    """UTC, as ISO 8601."""
    cell: int
    """The execution count."""
    names: list[str]
    """All that the session has, also what cannot come."""
    packages: dict[str, str] = {}
    """Versions of the libraries that were loaded."""


class Buffer(msgspec.Struct, frozen=True, array_like=True):
    """One block of memory of a group."""

    size_bytes: int
    is_readonly: bool


class Group(msgspec.Struct, frozen=True, tag="group", array_like=True):
    """Some variables that share objects."""

    names: list[str]
    body_bytes: int
    buffers: list[Buffer]
    has_code: bool


class Missing(msgspec.Struct, frozen=True, tag="missing", array_like=True):
    """A variable that cannot come."""

    name: str
    reason: str


class Progress(msgspec.Struct, frozen=True, tag="progress", array_like=True):
    """How far it is; only on sockets."""

    done: int
    total: int
    name: str


class End(msgspec.Struct, frozen=True, tag="end", array_like=True):
    """The end; without it the rest is missing."""

    groups: int


Meta = Header | Group | Missing | Progress | End

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Meta] = msgspec.msgpack.Decoder(Meta)
_KIND = 1

Block = bytearray | mmap.mmap
Chunk = bytes | bytearray | memoryview


def start() -> bytes:
    """Give the first bytes."""
    return START.pack(MAGIC, FORMAT)


def check_start(data: bytes) -> None:
    """Refuse what is no session of ours, and one of a format that is not known yet.

    Raises:
        Damaged: it is none, or newer.
    """
    if len(data) != START.size or not data.startswith(MAGIC):
        raise Damaged("it is no checkpoint of unstuck")
    number = START.unpack(data)[1]
    if number > FORMAT:
        raise Damaged(
            f"a newer unstuck has written it: its format is {number}, this one reads up to {FORMAT}"
        )
    if number < 1:
        raise Damaged("it is damaged: it has no format")


def encode(meta: Meta, data: list[Chunk] | None = None) -> list[Chunk]:
    """Give the chunks of one part."""
    packed = _encoder.encode(meta)
    chunks = data or []
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
    size = sum(memoryview(chunk).nbytes for chunk in chunks)
    head = _HEAD.pack(_KIND, len(packed), size, crc)
    return [head + _CRC.pack(zlib.crc32(packed, zlib.crc32(head))) + packed, *chunks]


def _memory(size: int) -> Block:
    """Give memory to read into; much of it is not filled with zeros first."""
    if size < MAPPED_BYTES:
        return bytearray(size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Reader:
    """Reads parts and checks them."""

    def __init__(self, read_into: Callable[[memoryview], None], left: int | None = None) -> None:
        """Read by a function that fills a view, or raises EOFError.

        Args:
            read_into: takes memory and fills it.
            left: how many bytes there are, where it is known: nothing larger is believed.
        """
        self._read_into = read_into
        self._left = left

    def read_start(self) -> None:
        """Read the first bytes.

        Raises:
            Damaged: they are not ours, or of a newer format.
        """
        size = START.size if self._left is None else min(START.size, self._left)
        check_start(bytes(self._read(size)))

    def parts(self) -> Iterator[tuple[Meta, list[Block]]]:
        """Give the parts up to the end: what they tell, and of a group its pickle and buffers.

        Raises:
            Damaged: a checksum is wrong, or bytes are missing.
        """
        groups = 0
        while True:
            meta, blocks = self._part()
            yield meta, blocks
            if isinstance(meta, Group):
                groups += 1
            if isinstance(meta, End):
                if meta.groups != groups or self._left:
                    raise Damaged("it is damaged: its end does not fit what is before it")
                return

    def _part(self) -> tuple[Meta, list[Block]]:
        head = self._read(HEAD_BYTES)
        kind, meta_size, size, crc = _HEAD.unpack_from(head)
        if kind != _KIND or meta_size > MAX_META_BYTES:
            raise Damaged("it is damaged: no part begins here")
        packed = self._read(meta_size)
        if (
            zlib.crc32(packed, zlib.crc32(head[: _HEAD.size]))
            != _CRC.unpack_from(head, _HEAD.size)[0]
        ):
            raise Damaged("it is damaged: a checksum is wrong")
        try:
            meta = _decoder.decode(packed)
        except (ValueError, RecursionError) as error:
            raise Damaged(f"it is damaged: {error}") from error
        sizes = (
            [meta.body_bytes, *(b.size_bytes for b in meta.buffers)]
            if isinstance(meta, Group)
            else []
        )
        if sum(sizes) != size or any(one < 0 for one in sizes):
            raise Damaged("it is damaged: sizes do not fit")
        found = 0
        blocks: list[Block] = []
        for one in sizes:
            blocks.append(self._read(one))
            found = zlib.crc32(blocks[-1], found)
        if found != crc:
            raise Damaged("it is damaged: a checksum is wrong")
        return meta, blocks

    def _read(self, size: int) -> Block:
        if self._left is not None:
            if size > self._left:
                raise Damaged("it is damaged: its end is missing")
            self._left -= size
        block = _memory(size)
        try:
            self._read_into(memoryview(block))
        except EOFError:
            raise Damaged("it is damaged: its end is missing") from None
        return block
