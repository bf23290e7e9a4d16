"""Lane messages as bytes: however they are cut, and whatever rubbish comes instead."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck import protocol
from unstuck.codec import MAX_BUFFERS, MAX_MESSAGE_BYTES, Decoder, encode
from unstuck.errors import WireError
from unstuck.protocol import (
    Finished,
    FromCopy,
    Outcome,
    Ping,
    Publish,
    Run,
    SetSettings,
    SnapshotRow,
    Stream,
    StreamName,
    ToBroker,
    ToCopy,
    ToWorker,
)
from unstuck.typing import MsgType, RunMode, SocketID

if TYPE_CHECKING:
    from collections.abc import Sequence

fuzz = settings(deadline=None, max_examples=200)
UNIONS = {"ToWorker": ToWorker, "ToBroker": ToBroker, "ToCopy": ToCopy}
PARTS = {SnapshotRow}
"""Of other messages."""

buffers = st.lists(st.binary(max_size=40), max_size=4)
texts = st.text(max_size=20)
runs = st.builds(
    Run,
    job=st.integers(0, 2**40),
    kind=st.sampled_from(MsgType),
    mode=st.sampled_from(RunMode),
    channel=st.sampled_from(SocketID),
    header=st.binary(max_size=20),
    parent_header=st.binary(max_size=20),
    metadata=st.binary(max_size=20),
    content=st.binary(max_size=200),
    idents=st.lists(st.binary(max_size=5), max_size=3),
    received_s=st.floats(allow_nan=False),
    subshell=st.none() | texts,
    buffers=buffers,
)
publications = st.builds(
    Publish,
    job=st.integers(0, 2**40),
    msg_type=texts,
    content=st.binary(max_size=99),
    buffers=buffers,
)
to_broker = st.one_of(
    publications,
    st.builds(Stream, job=st.integers(0, 2**40), name=st.sampled_from(StreamName), text=texts),
    st.builds(
        Finished,
        job=st.integers(0, 2**40),
        outcome=st.sampled_from(Outcome),
        content=st.binary(max_size=50),
        buffers=buffers,
    ),
    st.builds(SetSettings, settings=st.dictionaries(texts, st.none() | st.booleans() | texts)),
)


def pack(messages: Sequence[Any]) -> bytes:
    """Give what a lane carries for these messages."""
    return b"".join(bytes(chunk) for message in messages for chunk in encode(message))


def frame(body: bytes, sizes: Sequence[int] = ()) -> bytes:
    """Give a frame with this body and these buffer sizes, right or wrong."""
    head = struct.pack("!II", len(body), len(sizes))
    return head + struct.pack(f"!{len(sizes)}Q", *sizes) + body


def feed_in_pieces(decoder: Decoder[Any], data: bytes, cuts: Sequence[int]) -> list[Any]:
    """Feed the bytes cut at these places."""
    places = sorted({min(cut, len(data)) for cut in cuts})
    messages: list[Any] = []
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        messages += decoder.feed(data[start:end])
    return messages


# --- round trips ----------------------------------------------------------------------------------


def sample(kind: type[Any]) -> Any:  # noqa: ANN401 - a message of any type
    """Make a message with a value of the right type in every field that needs one."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        for example in (1, "text", b"bytes", True, 1.5, [], {}, *RunMode, *MsgType, *SocketID):
            try:
                msgspec.convert(example, field.type, strict=True)
            except msgspec.ValidationError:
                continue
            values[field.name] = msgspec.convert(example, field.type)
            break
        else:
            values[field.name] = msgspec.convert(
                next(iter(get_args(field.type) or field.type)), field.type
            )
    return kind(**values)


@pytest.mark.parametrize("union", UNIONS)
def test_every_message_type_of_the_protocol_survives_its_lane(union: str) -> None:
    kinds: tuple[type[Any], ...] = get_args(UNIONS[union])
    messages = [sample(kind) for kind in kinds]
    decoder: Decoder[Any] = Decoder(UNIONS[union])
    decoded = decoder.feed(pack(messages))
    assert decoded == messages
    assert [type(message) for message in decoded] == list(kinds)


def test_the_unions_hold_every_message_of_the_protocol_once() -> None:
    public = {
        value
        for value in vars(protocol).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == protocol.__name__
    }
    named = [*get_args(ToWorker), *get_args(ToBroker), *get_args(ToCopy), FromCopy]
    assert len(named) == len(set(named))
    assert set(named) == {kind for kind in public - PARTS if not kind.__name__.startswith("_")}
    for union in UNIONS.values():
        tags = [kind.__struct_config__.tag for kind in get_args(union)]
        assert len(tags) == len(set(tags))


@fuzz
@given(st.lists(to_broker, max_size=6), st.lists(st.integers(0, 2000), max_size=20))
def test_messages_to_the_broker_survive_any_cut(messages: list[Any], cuts: list[int]) -> None:
    assert feed_in_pieces(Decoder(ToBroker), pack(messages), cuts) == messages


@fuzz
@given(st.lists(runs, max_size=4), st.lists(st.integers(0, 2000), max_size=20))
def test_messages_to_the_worker_survive_any_cut(messages: list[Any], cuts: list[int]) -> None:
    assert feed_in_pieces(Decoder(ToWorker), pack(messages), cuts) == messages


def test_messages_survive_being_fed_byte_by_byte() -> None:
    messages = [Ping(1), Ping(2), Ping(2**60)]
    decoder: Decoder[Any] = Decoder(ToWorker)
    data = pack(messages)
    assert [m for at in range(len(data)) for m in decoder.feed(data[at : at + 1])] == messages


def test_a_message_is_given_as_soon_as_its_last_byte_is_there() -> None:
    message = Publish(1, "display_data", b"{}", buffers=[b"one", b"", bytes(1000)])
    data = pack([message])
    decoder: Decoder[Any] = Decoder(ToBroker)
    assert decoder.feed(data[:-1]) == []
    assert decoder.feed(b"") == []
    assert decoder.feed(data[-1:] + data[:1]) == [message]
    assert decoder.feed(data[1:]) == [message]


def test_buffers_may_be_anything_that_has_bytes_and_are_not_copied_before_the_lane() -> None:
    large = bytearray(1 << 20)
    numbers = memoryview(bytes(80)).cast("d")
    chunks = encode(Publish(1, "comm_msg", b"{}", buffers=[large, numbers, b""]))
    assert isinstance(chunks[1], memoryview)
    assert chunks[1].obj is large
    decoded = Decoder[Any](ToBroker).feed(b"".join(chunks))
    assert decoded[0].buffers == [bytes(large), bytes(80), b""]


def test_encoding_leaves_the_message_as_it_was() -> None:
    message = Publish(1, "comm_msg", b"{}", buffers=[b"one"])
    encode(message)
    assert message.buffers == [b"one"]


def test_a_decoder_takes_views_and_keeps_nothing_of_them() -> None:
    data = bytearray(pack([Ping(1)]))
    decoder: Decoder[Any] = Decoder(ToWorker)
    assert decoder.feed(memoryview(data)[:5]) == []
    assert decoder.feed(memoryview(data)[5:]) == [Ping(1)]
    data.clear()  # A buffer that is exported cannot be resized.


def test_megabytes_in_many_pieces_take_one_pass() -> None:
    message = Publish(1, "comm_msg", b"x" * (4 << 20), buffers=[bytes(4 << 20)])
    data = pack([message])
    decoder: Decoder[Any] = Decoder(ToBroker)
    pieces = [decoder.feed(data[at : at + 65536]) for at in range(0, len(data), 65536)]
    assert [message for piece in pieces for message in piece] == [message]


# --- rubbish --------------------------------------------------------------------------------------

SET = b"\x92\xacset_settings"


@pytest.mark.parametrize("union", UNIONS)
@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 8,
        b"HTTP/1.1 200 OK\r\n",
        struct.pack("!II", MAX_MESSAGE_BYTES + 1, 0),
        struct.pack("!II", 1, MAX_BUFFERS + 1),
        frame(b"\xc0", [MAX_MESSAGE_BYTES + 1]),
        frame(b"\xc0", [2**64 - 1] * 100),
        frame(b"\xc0", [MAX_MESSAGE_BYTES // 2 + 1] * 2),
        frame(b""),
        frame(b"\xc1"),
        frame(b"\xc0"),
        frame(b"\x90"),
        frame(b"\x91\xa7no such"),
        frame(b"\xdd\xff\xff\xff\xff"),
        frame(b"\xdf\xff\xff\xff\xff"),
        frame(b"\x92\xa4ping\xdd\xff\xff\xff\xff"),
        frame(SET + b"\xdf\xff\xff\xff\xff"),
        frame(SET + b"\x81\xa1\xff\xc0"),
        frame(SET + b"\x81\xa1a\xa1\xff"),
        frame(SET + b"\x81\xa1a" + b"\x91" * 100_000),
        frame(SET + b"\x81\xa1a" * 100_000),
        frame(SET + b"\x81\xa1a\x81\x80\xc0"),
        frame(SET + b"\x81\xa1a\xc7\x05\xff\0\0\0\0\0"),
        frame(SET + b"\x80 and more"),
        frame(b"\x92\xa4ping\x01", [3]) + b"buf",
        frame(b"\x92\xa4pong\x01", [3]) + b"buf",
    ],
)
def test_rubbish_is_a_wire_error(union: str, data: bytes) -> None:
    decoder: Decoder[Any] = Decoder(UNIONS[union])
    with pytest.raises(WireError):
        decoder.feed(data)


@fuzz
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_random_bytes_raise_nothing_but_wire_errors(data: bytes, cuts: list[int]) -> None:
    for union in UNIONS.values():
        for lane in (data, frame(data), frame(SET + b"\x81\xa1a" + data)):
            try:
                feed_in_pieces(Decoder(union), lane, cuts)
            except WireError:
                continue


@fuzz
@given(to_broker, st.data())
def test_a_changed_byte_raises_nothing_but_wire_errors(message: Any, data: st.DataObject) -> None:  # noqa: ANN401 - any message
    lane = bytearray(pack([message]))
    lane[data.draw(st.integers(0, len(lane) - 1))] = data.draw(st.integers(0, 255))
    try:
        Decoder[Any](ToBroker).feed(bytes(lane))
    except WireError:
        return


def test_a_message_of_the_other_direction_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="malformed lane message"):
        Decoder[Any](ToBroker).feed(pack([Ping(1)]))


def test_messages_before_the_rubbish_are_lost_with_their_lane() -> None:
    with pytest.raises(WireError):
        Decoder[Any](ToWorker).feed(pack([Ping(1)]) + frame(b"\xc0"))


def test_a_message_that_no_reader_would_take_is_not_written() -> None:
    half_gigabyte = bytes(1 << 29)
    for message in (
        Publish(1, "comm_msg", b"{}", buffers=[half_gigabyte] * 3),
        Publish(1, "comm_msg", b"{}", buffers=[b""] * (MAX_BUFFERS + 1)),
    ):
        with pytest.raises(WireError, match="larger than"):
            encode(message)
    encode(Publish(1, "comm_msg", b"{}", buffers=[half_gigabyte] * 2))
