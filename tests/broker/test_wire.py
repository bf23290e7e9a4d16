"""The wire format against jupyter_client's own Session, in both directions, and against rubbish."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from broker.wire_clients import (
    KEY,
    SCHEMES,
    client_frames,
    make_session,
    make_wire,
    signed,
    with_header,
)
from unstuck.errors import ClientError
from unstuck.typing import BrokerMsgType, MsgType, SocketID
from unstuck_broker.wire import DELIMITER, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_client.session import Session

DATE = "2026-11-23T12:00:00.123456Z"


def read_by_client(session: Session, frames: list[Any]) -> dict[str, Any]:
    """Verify and decode what the kernel sent, as jupyter_client does."""
    _, rest = session.feed_identities(frames)
    return session.deserialize(rest)


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
    ids = [json.loads(bytes(frames[2]))["msg_id"] for frames in sent]
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
