"""The wire format against jupyter_client's own Session, in both directions, and against rubbish."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_client.session import Session
from unstuck.errors import ClientError, ConfigError
from unstuck.typing import BrokerMsgType, MsgType, SocketID
from unstuck_broker.wire import DELIMITER, REPLAY_HISTORY, Request, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"0c7cbbd6-1dbd-4a4b-9d0c-1a2b3c4d5e6f"
DATE = "2026-11-23T12:00:00.123456Z"
SCHEMES = sorted(
    f"hmac-{name}" for name in hashlib.algorithms_guaranteed if not name.startswith("shake")
)
fuzz = settings(deadline=None, max_examples=300)


def make_wire(key: bytes = KEY, scheme: str = "hmac-sha256") -> Wire:
    return Wire(key, scheme, session="kernel-session", username="ada", pid=4711)


def make_session(key: bytes = KEY, scheme: str = "hmac-sha256") -> Session:
    return Session(key=key, signature_scheme=scheme)


@pytest.fixture
def wire() -> Wire:
    return make_wire()


@pytest.fixture
def session() -> Session:
    return make_session()


def client_frames(
    session: Session,
    msg_type: str = "execute_request",
    content: dict[str, Any] | bytes | None = None,
) -> list[bytes]:
    """Give a message as a client sends it, with the identity that zmq puts before it."""
    message = session.msg(msg_type, {})
    message["content"] = {"code": "1"} if content is None else content
    return session.serialize(message, ident=b"client")


def signed(session: Session, *json_frames: bytes) -> list[bytes]:
    """Give a message with these JSON frames, signed as a client would."""
    return [b"client", DELIMITER, session.sign(list(json_frames)), *json_frames]


def with_header(session: Session, /, **fields: object) -> list[bytes]:
    """Give a signed message whose header has exactly these fields."""
    return signed(session, json.dumps(fields).encode(), b"{}", b"{}", b"{}")


def read_by_client(session: Session, frames: list[bytes]) -> dict[str, Any]:
    """Verify and decode what the kernel sent, as jupyter_client does."""
    _, rest = session.feed_identities(frames)
    return session.deserialize(rest)


def refusal(wire: Wire, frames: list[bytes]) -> str:
    """Give the reason why a message is refused."""
    with pytest.raises(ClientError) as caught:
        wire.parse(SocketID.shell, frames)
    return str(caught.value)


# --- from the client ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_message_of_jupyter_client_is_verified_in_every_scheme(scheme: str) -> None:
    session = make_session(scheme=scheme)
    request = make_wire(scheme=scheme).parse(SocketID.shell, client_frames(session))
    assert request.kind is MsgType.execute_request
    assert request.header.session == session.session
    with pytest.raises(ClientError, match="bad signature"):
        make_wire(b"another key", scheme).parse(SocketID.shell, client_frames(session))


def test_a_request_has_all_that_the_client_sent(wire: Wire, session: Session) -> None:
    message = session.msg("comm_msg", {"comm_id": "ü", "data": {"x": [1, None]}})
    message["header"]["subshell_id"] = "sub-1"
    message["header"]["run_mode"] = "task"
    message["metadata"] = {"tags": ["a"]}
    message["parent_header"] = {"msg_id": "the parent"}
    frames = [*session.serialize(message, ident=[b"hop", b"client"]), b"one", b"", bytes(3)]
    request = wire.parse(SocketID.control, frames)
    assert request.channel is SocketID.control
    assert request.idents == (b"hop", b"client")
    assert request.header.msg_id == message["header"]["msg_id"]
    assert request.header.msg_type == "comm_msg"
    assert request.header.username == session.username
    assert request.header.version == message["header"]["version"]
    assert request.header.subshell_id == "sub-1"
    assert request.header.run_mode == "task"
    assert json.loads(request.header_json)["msg_id"] == message["header"]["msg_id"]
    assert json.loads(request.parent_json) == {"msg_id": "the parent"}
    assert json.loads(request.metadata_json) == {"tags": ["a"]}
    assert json.loads(request.content_json) == {"comm_id": "ü", "data": {"x": [1, None]}}
    assert request.buffers == (b"one", b"", bytes(3))


@pytest.mark.parametrize("kind", [*MsgType, *BrokerMsgType])
def test_every_known_type_is_named(wire: Wire, session: Session, kind: MsgType) -> None:
    assert wire.parse(SocketID.shell, client_frames(session, str(kind))).kind is kind


@pytest.mark.parametrize("name", ["input_reply", "no_such_request", "", "execute_reply"])
def test_a_type_that_is_no_request_has_no_kind_but_its_name(
    wire: Wire, session: Session, name: str
) -> None:
    request = wire.parse(SocketID.stdin, client_frames(session, name))
    assert request.kind is None
    assert request.header.msg_type == name


def test_a_message_may_have_no_identity_at_all(wire: Wire, session: Session) -> None:
    assert wire.parse(SocketID.shell, client_frames(session)[1:]).idents == ()


def test_an_empty_key_verifies_nothing() -> None:
    wire = make_wire(b"")
    frames = client_frames(make_session(b""))
    assert frames[2] == b""
    for signature in (b"", b"anything", b"anything"):
        frames[2] = signature
        assert wire.parse(SocketID.shell, frames).kind is MsgType.execute_request


@pytest.mark.parametrize("size_bytes", [1 << 20, 20 << 20])
def test_megabytes_pass_unchanged(wire: Wire, session: Session, size_bytes: int) -> None:
    content = {"text": "äöü" * (size_bytes // 6)}
    buffer = bytes(range(256)) * (size_bytes // 256)
    frames = [*client_frames(session, content=content), buffer]
    request = wire.parse(SocketID.shell, frames)
    assert json.loads(request.content_json) == content
    assert request.buffers[0] is frames[-1]


# --- old and sloppy clients -----------------------------------------------------------------------


def test_a_header_needs_only_an_id_and_a_type(wire: Wire, session: Session) -> None:
    frames = with_header(session, msg_id="1", msg_type="kernel_info_request")
    header = wire.parse(SocketID.shell, frames).header
    assert (header.session, header.username, header.date, header.version) == ("", "", "", "")
    assert header.subshell_id is None
    assert header.run_mode is None


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("date", 1700000000, "1700000000"),
        ("date", None, ""),
        ("version", 5.0, "5.0"),
        ("username", None, ""),
        ("username", ["no", "name"], ""),
        ("session", 17, "17"),
        ("subshell_id", None, None),
        ("run_mode", {"odd": 1}, {"odd": 1}),
    ],
)
def test_odd_header_fields_are_read_as_far_as_they_go(
    wire: Wire, session: Session, field: str, value: object, read: object
) -> None:
    fields = {"msg_id": "1", "msg_type": "execute_request", field: value}
    request = wire.parse(SocketID.shell, with_header(session, **fields))
    assert getattr(request.header, field) == read
    assert json.loads(request.header_json) == fields


def test_unknown_header_fields_are_kept_in_the_json(wire: Wire, session: Session) -> None:
    frames = with_header(session, msg_id="1", msg_type="x", colour=["blue"])
    assert json.loads(wire.parse(SocketID.shell, frames).header_json)["colour"] == ["blue"]


def test_null_is_an_empty_object_everywhere_but_in_the_header(wire: Wire, session: Session) -> None:
    header = b'{"msg_id":"1","msg_type":"execute_request"}'
    request = wire.parse(SocketID.shell, signed(session, header, b"null", b" null ", b"null"))
    assert (request.parent_json, request.metadata_json, request.content_json) == (b"{}",) * 3


def test_half_an_emoji_and_bad_utf8_are_replaced_as_jupyter_client_does(
    wire: Wire, session: Session
) -> None:
    header = b'{"msg_id":"\\ud83d","msg_type":"execute_request","colour":"\xff"}'
    content = b'{"code":"\\ud83d \xfe \\ud83d\\ude00 \xc3\xa4","deep":[{"\\udc00":NaN}]}'
    request = wire.parse(SocketID.shell, signed(session, header, b"{}", b"{}", content))
    assert request.header.msg_id == "\ufffd"
    assert msgspec.json.decode(request.header_json)["colour"] == "\ufffd"
    assert msgspec.json.decode(request.content_json) == {
        "code": "\ufffd \ufffd 😀 ä",
        "deep": [{"\ufffd": None}],
    }


def test_surrogates_escaped_as_pairs_are_left_as_they_came(wire: Wire, session: Session) -> None:
    content = b'{"code": "\\ud83d\\ude00"}'
    assert wire.parse(SocketID.shell, client_frames(session, content=content)).content_json is (
        content
    )


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


# --- to the client --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_jupyter_client_verifies_what_we_send_in_every_scheme(scheme: str) -> None:
    session = make_session(scheme=scheme)
    parent = client_frames(session)[3]
    frames = make_wire(scheme=scheme).serialize(
        [b"client"],
        "execute_reply",
        b'{"status":"ok"}',
        date=DATE,
        parent_header=parent,
        metadata=b'{"started":true}',
        buffers=[b"one", b"two"],
    )
    assert frames[0] == b"client"
    message = read_by_client(session, frames)
    assert message["header"] == {
        "msg_id": "kernel-session_4711_0",
        "msg_type": "execute_reply",
        "username": "ada",
        "session": "kernel-session",
        "date": datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC),
        "version": "5.5",
    }
    assert message["parent_header"]["session"] == session.session
    assert message["metadata"] == {"started": True}
    assert message["content"] == {"status": "ok"}
    assert message["buffers"] == [b"one", b"two"]


def test_jupyter_client_refuses_what_was_changed_on_the_way(wire: Wire, session: Session) -> None:
    frames = wire.serialize([b"x"], "status", b'{"execution_state":"idle"}', date=DATE)
    frames[-1] = b'{"execution_state":"busy"}'
    with pytest.raises(ValueError, match="Invalid Signature"):
        read_by_client(session, frames)


def test_an_empty_key_signs_nothing() -> None:
    frames = make_wire(b"").serialize([], "status", b"{}", date=DATE)
    assert frames[:2] == [DELIMITER, b""]
    assert read_by_client(make_session(b""), frames)["header"]["msg_type"] == "status"


def test_every_message_has_an_id_of_its_own(wire: Wire) -> None:
    sent = [wire.serialize([], "status", b"{}", date=DATE) for _ in range(100)]
    ids = [json.loads(frames[2])["msg_id"] for frames in sent]
    assert ids == [f"kernel-session_4711_{number}" for number in range(100)]


def test_names_are_escaped_as_json(session: Session) -> None:
    odd = 'quote " backslash \\ newline \n ü 😀'
    wire = Wire(KEY, "hmac-sha256", session=odd, username=odd, pid=1)
    header = read_by_client(session, wire.serialize([], odd, b"{}", date=DATE))["header"]
    assert header["msg_id"] == f"{odd}_1_0"
    assert (header["session"], header["username"], header["msg_type"]) == (odd, odd, odd)


def test_megabytes_of_any_text_arrive_at_the_client(wire: Wire, session: Session) -> None:
    content: dict[str, Any] = {
        "text": "ä😀\u2028" * 1_000_000,
        "image": base64.b64encode(bytes(range(256)) * 1000).decode(),
        "none": None,
        "float": 1e308,
    }
    frames = wire.serialize([b"t"], "display_data", msgspec.json.encode(content), date=DATE)
    assert read_by_client(session, frames)["content"] == content


@pytest.mark.parametrize("key", [KEY, b""])
def test_what_we_send_we_can_read(key: bytes) -> None:
    wire, other = make_wire(key), make_wire(key)
    frames = wire.serialize(
        [b"a", b"b"], "comm_msg", b'{"data":1}', date=DATE, buffers=[b"", DELIMITER]
    )
    request = other.parse(SocketID.shell, frames)
    assert request.idents == (b"a", b"b")
    assert request.header.date == DATE
    assert request.buffers == (b"", DELIMITER)


def test_a_request_survives_being_echoed_as_a_parent(wire: Wire, session: Session) -> None:
    odd: list[Callable[[], list[bytes]]] = [
        lambda: client_frames(session),
        lambda: with_header(session, msg_id="1", msg_type="x", date=5, version=None),
        lambda: signed(session, b'{"msg_id":"\\ud800","msg_type":"\xff"}', b"{}", b"{}", b"{}"),
    ]
    for make in odd:
        request = wire.parse(SocketID.shell, make())
        reply = wire.serialize(
            request.idents, "reply", b"{}", date=DATE, parent_header=request.header_json
        )
        parent = read_by_client(session, reply)["parent_header"]
        assert parent["msg_id"] == request.header.msg_id
