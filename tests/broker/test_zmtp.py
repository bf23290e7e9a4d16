"""ZMTP as a ROUTER speaks it, without a socket: what libzmq sends, cut into pieces, and rubbish."""

from __future__ import annotations

import socket
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from unstuck.errors import ClientError
from unstuck_broker.zmtp import GREETING, Peer, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 1 << 20


def ready(**properties: bytes) -> bytes:
    """Make a READY command with these properties, in any case; ``_`` stands for ``-``."""
    data = b"\x05READY"
    for name, value in properties.items():
        data += bytes((len(name),)) + name.replace("_", "-").encode()
        data += len(value).to_bytes(4, "big") + value
    return bytes((4, len(data))) + data


def command(name: bytes, data: bytes = b"") -> bytes:
    return bytes((4, len(name) + len(data) + 1, len(name))) + name + data


def make_peer() -> Peer:
    """Make a peer that has sent nothing."""
    return Peer(MAX_BYTES, 2 * MAX_BYTES)


def make_ready_peer() -> Peer:
    """Make one whose handshake is done."""
    peer = make_peer()
    assert peer.feed(GREETING + ready(Socket_Type=b"DEALER")) == []
    peer.answers()
    return peer


def feed_all(peer: Peer, parts: Iterable[bytes]) -> list[list[bytes]]:
    return [message for part in parts if part for message in peer.feed(part)]


# --- what libzmq says -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ, zmq.ROUTER])
def test_the_handshake_of_libzmq_is_understood(kind: int) -> None:
    peer = make_peer()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        zmq.Context() as context,
        context.socket(kind) as client,
    ):
        client.set(zmq.LINGER, 0)
        client.set(zmq.IDENTITY, b"ada")
        client.connect(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        server.settimeout(10)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(10)
            connection.sendall(GREETING)
            while not peer.is_ready:
                assert feed_all(peer, [connection.recv(7)]) == []
                connection.sendall(peer.answers())
            assert peer.identity == b"ada"
            if kind != zmq.ROUTER:
                client.send_multipart([b"one", b"", b"x" * 300])
                messages: list[list[bytes]] = []
                while not messages:
                    messages += peer.feed(connection.recv(1000))
                envelope = [b""] if kind == zmq.REQ else []
                assert messages == [[*envelope, b"one", b"", b"x" * 300]]


def test_pings_are_answered_with_their_context() -> None:
    peer = make_ready_peer()
    assert peer.feed(command(b"PING", b"\0\x64context")) == []
    assert peer.answers() == command(b"PONG", b"context")
    assert peer.answers() == b""


def test_a_name_that_begins_with_zero_is_none() -> None:
    peer = make_peer()
    peer.feed(GREETING + ready(SOCKET_TYPE=b"DEALER", identity=b"\0mine"))
    assert peer.is_ready
    assert peer.identity == b""


def test_unknown_commands_and_a_second_ready_mean_nothing() -> None:
    peer = make_ready_peer()
    assert peer.feed(command(b"FUTURE", b"x") + ready(Socket_Type=b"PUB") + bytes((4, 0))) == []
    assert peer.feed(encode([b"still here"])) == [[b"still here"]]


# --- pieces ---------------------------------------------------------------------------------------

frames = st.lists(st.binary(max_size=300) | st.just(b"x" * 70_000), min_size=1, max_size=8)


@given(messages=st.lists(frames, max_size=5), data=st.data())
def test_messages_are_the_same_however_they_are_cut(
    messages: list[list[bytes]], data: st.DataObject
) -> None:
    stream = GREETING + ready(Socket_Type=b"DEALER") + b"".join(map(encode, messages))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    ends = [0, *cuts, len(stream)]
    peer = make_peer()
    assert feed_all(peer, [stream[a:b] for a, b in pairwise(ends)]) == messages


def test_one_byte_at_a_time_will_do() -> None:
    messages = [[b"", b"one"], [b"x" * 256], [b"\xff" * 255, b""]]
    stream = GREETING + ready(Socket_Type=b"REQ") + b"".join(map(encode, messages))
    peer = make_peer()
    assert feed_all(peer, [stream[at : at + 1] for at in range(len(stream))]) == messages


@given(st.binary(min_size=1))
def test_rubbish_is_refused_or_waited_for_and_nothing_else(rubbish: bytes) -> None:
    for peer in (make_peer(), make_ready_peer()):
        try:
            peer.feed(rubbish)
        except ClientError:
            continue


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no zmq socket"),
        (b"\xff" * 10, "no zmq socket"),
        (b"\xff" + bytes(8) + b"\x7f\x01", "older than ZMTP 3"),
        (GREETING.replace(b"NULL", b"CURVE")[:64], "the mechanism b'CURVE'"),
        (GREETING + encode([b"early"]), "a message before the READY command"),
        (GREETING + ready(Socket_Type=b"SUB"), "a socket of type b'SUB'"),
        (GREETING + ready(), "a socket of type b''"),
        (GREETING + ready(Socket_Type=b"DEALER")[:-1].replace(b"\x1c", b"\x1b"), "cut short"),
        (GREETING + command(b"ERROR", b"\0"), "refuses to talk"),
        (GREETING + b"\x80\x01x", "no frame with the flags 0x80"),
        (GREETING + b"\x05\x01x", "no frame with the flags 0x05"),
        (GREETING + b"\x06" + (1 << 20).to_bytes(8, "big"), "a frame of 1048576 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused_and_why(data: bytes, why: str) -> None:
    with pytest.raises(ClientError, match=why):
        make_peer().feed(data)


def test_a_frame_that_is_too_large_is_refused_before_it_comes() -> None:
    peer = make_ready_peer()
    with pytest.raises(ClientError, match="a frame of 1048577 bytes, where 1048576 are allowed"):
        peer.feed(b"\x02" + (MAX_BYTES + 1).to_bytes(8, "big"))


@pytest.mark.parametrize("body", [b"", b"x" * 100_000])
def test_a_message_without_an_end_is_refused(body: bytes) -> None:
    peer = make_ready_peer()
    parts = repeat(encode([body, b""])[:-2], 3 * MAX_BYTES)
    with pytest.raises(ClientError, match="a message of more than 2097152 bytes"):
        feed_all(peer, parts)
