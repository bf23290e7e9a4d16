"""Messages that are malformed, forged or replayed, and rubbish: refused, and the reason said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire_clients import (
    client_frames,
    make_session,
    make_wire,
    signed,
)
from unstuck.errors import ClientError, ConfigError
from unstuck.typing import SocketID
from unstuck_broker.wire import DELIMITER, REPLAY_HISTORY, Request, Wire

if TYPE_CHECKING:
    from jupyter_client.session import Session

fuzz = settings(deadline=None, max_examples=300)


def refusal(wire: Wire, frames: list[bytes]) -> str:
    """Give the reason why a message is refused."""
    with pytest.raises(ClientError) as caught:
        wire.parse(SocketID.shell, frames)
    return str(caught.value)


# --- malformed ------------------------------------------------------------------------------------


def test_a_message_without_delimiter_is_refused(wire: Wire) -> None:
    assert refusal(wire, [b"a", b"bcd"]) == "no <IDS|MSG> delimiter in 2 frames of 4 bytes"
    assert "no <IDS|MSG> delimiter in 0 frames" in refusal(wire, [])


def test_a_hundred_megabytes_of_garbage_are_refused_in_a_short_line(wire: Wire) -> None:
    garbage = b"\xff" * (100 << 20)
    assert refusal(wire, [b"id", garbage]) == (
        "no <IDS|MSG> delimiter in 2 frames of 104857602 bytes"
    )
    text = refusal(make_wire(b""), [b"id", DELIMITER, b"", garbage, b"{}", b"{}", b"{}"])
    assert text.startswith("the header b'\\xff")
    assert "cannot be read" in text
    assert len(text) < 300


@pytest.mark.parametrize("count", range(5))
def test_too_few_frames_are_counted(wire: Wire, session: Session, count: int) -> None:
    frames = client_frames(session)[: 2 + count]
    assert refusal(wire, frames).startswith(f"{count} frames after the delimiter: the signature, h")


@pytest.mark.parametrize("at", [3, 4, 5, 6])
def test_a_change_in_any_json_frame_is_noticed(wire: Wire, session: Session, at: int) -> None:
    frames = client_frames(session)
    frames[at] += b" "
    assert "bad signature" in refusal(wire, frames)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (b"", "not signed"),
        (b"0" * 64, "bad signature"),
        (b"\xff" * 10_000_000, "bad signature"),
    ],
)
def test_a_signature_of_anybody_else_is_refused(
    wire: Wire, session: Session, signature: bytes, reason: str
) -> None:
    frames = client_frames(session)
    frames[2] = signature
    text = refusal(wire, frames)
    assert reason in text
    assert len(text) < 200


def test_an_upper_case_signature_is_no_signature(wire: Wire, session: Session) -> None:
    frames = client_frames(session)
    frames[2] = frames[2].upper()
    assert "bad signature" in refusal(wire, frames)


def test_a_replayed_message_is_refused_and_the_next_one_is_not(
    wire: Wire, session: Session
) -> None:
    frames = client_frames(session)
    wire.parse(SocketID.shell, frames)
    assert "replayed message" in refusal(wire, frames)
    frames[0] = b"somebody else"
    assert "replayed message" in refusal(wire, frames)
    wire.parse(SocketID.shell, client_frames(session))


def test_the_replay_history_is_bounded_and_only_true_signatures_enter_it(session: Session) -> None:
    wire = make_wire()
    first = client_frames(session)
    wire.parse(SocketID.shell, first)
    forged = list(first)
    for number in range(1000):
        forged[2] = b"%064x" % number
        refusal(wire, forged)
    header = b'{"msg_id":"%d","msg_type":"execute_request"}'

    def send(numbers: range) -> None:
        for number in numbers:
            wire.parse(SocketID.shell, signed(session, header % number, b"{}", b"{}", b"{}"))

    send(range(REPLAY_HISTORY // 2))
    assert "replayed message" in refusal(wire, first)
    send(range(REPLAY_HISTORY // 2, REPLAY_HISTORY))
    wire.parse(SocketID.shell, first)  # So old that it is forgotten: the price of a bound.


@pytest.mark.parametrize("name", ["parent_header", "metadata", "content"])
@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b'{"a":1}}', "is no JSON"),
        (b"{'a':1}", "is no JSON"),
        (b"\xff\xfe{}", "is neither JSON nor UTF-8"),
        ("{}".encode("utf-16"), "is neither JSON nor UTF-8"),
        (b"[]", "is no JSON object"),
        (b"1", "is no JSON object"),
        (b'"text"', "is no JSON object"),
        (b"true", "is no JSON object"),
        (b"NaN", None),
        (b'{"a":' + b"[" * 200_000, "cannot be read"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "cannot be read"),
    ],
)
def test_a_frame_that_is_no_object_is_refused_by_name(
    wire: Wire, session: Session, name: str, frame: bytes, reason: str | None
) -> None:
    frames = [b'{"msg_id":"1","msg_type":"execute_request"}', b"{}", b"{}", b"{}"]
    at = ("header", "parent_header", "metadata", "content").index(name)
    frames[at] = frame
    if reason is None:  # NaN alone is null: an empty object.
        wire.parse(SocketID.shell, signed(session, *frames))
        return
    text = refusal(wire, signed(session, *frames))
    assert text.startswith(f"the {name} b")
    assert reason in text
    assert len(text) < 300


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "the header b'' is no JSON"),
        (b"[]", "the header b'[]' is no JSON object"),
        (b"null", "the header has no msg_id"),
        (b"{}", "the header has no msg_id"),
        (b'{"msg_id":"1"}', "the header has no msg_type"),
        (b'{"msg_id":1,"msg_type":"x"}', "the header's msg_id is no string but 1"),
        (b'{"msg_id":null,"msg_type":"x"}', "the header's msg_id is no string but None"),
        (b'{"msg_id":"1","msg_type":["x"]}', "the header's msg_type is no string but list"),
        (
            b'{"msg_id":"1","msg_type":"x","subshell_id":5}',
            "the header's subshell_id is no string but 5",
        ),
    ],
)
def test_a_header_that_cannot_be_used_is_refused_with_the_reason(
    wire: Wire, session: Session, header: bytes, reason: str
) -> None:
    assert refusal(wire, signed(session, header, b"{}", b"{}", b"{}")).startswith(reason)


@pytest.mark.parametrize("scheme", ["", "sha256", "hmac-", "hmac-nope", "hmac-shake_128", "none"])
def test_an_unknown_signature_scheme_is_a_configuration_error(scheme: str) -> None:
    with pytest.raises(ConfigError, match="unknown signature scheme"):
        make_wire(scheme=scheme)
    with pytest.raises(ConfigError, match="unknown signature scheme"):
        make_wire(b"", scheme)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
json_frames = st.one_of(
    st.binary(max_size=40),
    json_values.map(lambda value: json.dumps(value).encode()),
    json_values.map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    st.dictionaries(
        st.sampled_from(
            ["msg_id", "msg_type", "session", "username", "date", "version", "subshell_id", "x"]
        ),
        json_values,
    ).map(lambda value: json.dumps(value).encode()),
)


def parse_or_refuse(wire: Wire, frames: list[bytes]) -> Request | None:
    """Parse; whatever else than `ClientError` is raised fails the test."""
    try:
        request = wire.parse(SocketID.shell, frames)
    except ClientError as error:
        reason = str(error)
    else:
        for frame in (
            request.header_json,
            request.parent_json,
            request.metadata_json,
            request.content_json,
        ):
            assert isinstance(msgspec.json.decode(frame, type=dict[str, msgspec.Raw]), dict)
            frame.decode()
        return request
    assert len(reason) < 400
    assert "\n" not in reason
    return None


@fuzz
@given(st.lists(st.one_of(st.binary(max_size=20), st.just(DELIMITER), json_frames), max_size=12))
def test_no_rubbish_raises_anything_but_a_client_error(frames: list[bytes]) -> None:
    parse_or_refuse(make_wire(), frames)
    parse_or_refuse(make_wire(b""), frames)


@fuzz
@given(st.lists(json_frames, min_size=4, max_size=7))
def test_no_signed_rubbish_raises_anything_but_a_client_error(frames: list[bytes]) -> None:
    session = make_session()
    signature = session.sign(frames[:4])
    parse_or_refuse(make_wire(), [b"id", DELIMITER, signature, *frames])


@fuzz
@given(json_values, json_values, st.binary(max_size=30))
def test_whatever_json_a_client_sends_arrives_as_it_was(
    value: object, metadata: object, buffer: bytes
) -> None:
    header = b'{"msg_id":"1","msg_type":"comm_msg"}'
    content = json.dumps({"value": value}).encode()
    frames = signed(make_session(), header, b"{}", json.dumps({"m": metadata}).encode(), content)
    request = parse_or_refuse(make_wire(), [*frames, buffer])
    assert request is not None
    assert request.buffers == (buffer,)
    if b"NaN" not in content and b"Infinity" not in content and b"\\ud" not in content:
        assert json.loads(request.content_json) == {"value": value}
