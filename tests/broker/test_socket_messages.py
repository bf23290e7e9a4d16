"""What goes through bound sockets: requests, replies, publications, back-pressure and rubbish."""

from __future__ import annotations

import secrets
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import zmq

from broker.zmq_clients import WAIT_S, Bound, bind, describe, fill, hear, receive, wait_for
from unstuck.typing import SocketID
from unstuck_broker.sockets import IOPUB_MESSAGES
from unstuck_broker.zmqchannel import ZERO_COPY_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    ZmqSocket = zmq.Socket[bytes]

each = pytest.mark.parametrize("channel", [SocketID.shell, SocketID.control])
"""One is zmq's, one is `unstuck_broker.router`'s."""

# --- messages -------------------------------------------------------------------------------------


@each
def test_no_message_is_missed_when_pending_is_asked_before_waiting(
    bound: Bound, channel: SocketID
) -> None:
    sockets, clients = bound
    client = clients.connect(channel)
    numbers: list[int] = []
    for number in range(2000):
        client.send(b"%d" % number)
        if number % 7 == 0:
            sockets.send(channel, [b"nobody", b"x"])
        if number % 500 == 499:
            numbers += [int(receive(sockets, channel)[1]) for _ in range(500)]
    assert numbers == list(range(2000))
    assert not sockets.pending(channel)


@each
def test_megabytes_go_both_ways(bound: Bound, channel: SocketID) -> None:
    sockets, clients = bound
    client = clients.connect(channel)
    large = secrets.token_bytes(1 << 20) * 50
    client.send_multipart([large, b"small"], copy=False)
    identity, *frames = receive(sockets, channel)
    assert frames == [large, b"small"]
    assert sockets.send(channel, [identity, b"small", large, large])
    assert hear(sockets, client) == [b"small", large, large]


@each
def test_a_reply_to_a_client_that_is_gone_is_dropped(bound: Bound, channel: SocketID) -> None:
    sockets, clients = bound
    client = clients.connect(channel)
    client.send(b"hello")
    identity, _ = receive(sockets, channel)
    client.close(linger=0)
    for _ in range(10):
        assert sockets.send(channel, [identity, b"reply", bytes(ZERO_COPY_BYTES)])
    assert sockets.send(channel, [b"nobody ever", b"reply"])


@each
def test_a_client_that_reconnects_under_its_identity_gets_the_replies(
    bound: Bound, channel: SocketID
) -> None:
    sockets, clients = bound
    for number in range(3):
        client = clients.connect(channel, identity=b"the same")
        client.send(b"%d" % number)
        assert receive(sockets, channel) == [b"the same", b"%d" % number]
        assert sockets.send(channel, [b"the same", b"reply %d" % number])
        assert hear(sockets, client) == [b"reply %d" % number]


def test_heartbeats_of_a_flood_are_echoed_a_bounded_number_at_a_time(bound: Bound) -> None:
    sockets, clients = bound
    client = clients.connect(SocketID.heartbeat)
    for number in range(1000):
        client.send(b"%d" % number)
    echoed: list[int] = []
    while len(echoed) < 1000:
        before = len(echoed)
        wait_for(lambda: sockets.pending(SocketID.heartbeat) or None)
        sockets.echo_heartbeat()
        while client.poll(100):
            echoed.append(int(client.recv()))
        assert len(echoed) - before <= 100
    assert echoed == list(range(1000))


# --- iopub ----------------------------------------------------------------------------------------


def test_subscriptions_and_their_end_are_seen_also_those_of_a_second_client(bound: Bound) -> None:
    sockets, clients = bound
    assert sockets.receive_subscription() is None
    one, two = clients.subscribe(sockets), clients.subscribe(sockets)
    two.set(zmq.SUBSCRIBE, b"topic")
    assert wait_for(sockets.receive_subscription) == b"\x01topic"
    two.set(zmq.UNSUBSCRIBE, b"topic")
    assert wait_for(sockets.receive_subscription) == b"\x00topic"
    one.close(linger=0)
    two.close(linger=0)
    assert wait_for(sockets.receive_subscription) == b"\x00"


def test_messages_sent_upstream_by_an_odd_client_are_ignored(bound: Bound) -> None:
    sockets, clients = bound
    odd = clients.connect(SocketID.iopub, zmq.XSUB)
    for frames in ([b"hello"], [b""], [b"\x02"], [b"x", b"\x01a"]):
        odd.send_multipart(frames)
    odd.send(b"\x01real")
    assert wait_for(sockets.receive_subscription) == b"\x01real"
    assert sockets.receive_subscription() is None


@pytest.mark.parametrize("size_bytes", [ZERO_COPY_BYTES // 2, ZERO_COPY_BYTES])
def test_a_slow_subscriber_is_waited_for_and_loses_nothing(bound: Bound, size_bytes: int) -> None:
    sockets, clients = bound
    slow = clients.subscribe(sockets, hwm=1)
    taken = fill(sockets, size_bytes)
    assert taken >= IOPUB_MESSAGES
    poll = select.poll()
    poll.register(sockets.fileno(SocketID.iopub), select.POLLIN)
    assert not sockets.pending(SocketID.iopub)
    received: list[int] = []

    def read(count: int) -> None:
        for _ in range(count):
            number, body = slow.recv_multipart()
            assert len(body) == size_bytes
            received.append(int(number))

    read(taken)
    assert poll.poll(WAIT_S * 1000), "the descriptor does not tell of room"
    assert sockets.send(SocketID.iopub, [b"%d" % taken, bytes(size_bytes)])
    read(1)
    assert received == list(range(taken + 1))


def test_without_nodrop_a_slow_subscriber_loses_and_the_others_do_not(bound: Bound) -> None:
    sockets, clients = bound
    slow = clients.subscribe(sockets, hwm=1)
    taken = fill(sockets, ZERO_COPY_BYTES // 2)
    sockets.set_nodrop(False)
    quick = clients.subscribe(sockets)
    for number in range(500):
        assert sockets.send(SocketID.iopub, [b"more", b"%d" % number])
        assert quick.recv_multipart() == [b"more", b"%d" % number]
    for number in range(taken):
        assert slow.recv_multipart()[0] == b"%d" % number
    sockets.set_nodrop(True)
    wait_for(lambda: sockets.send(SocketID.iopub, [b"last"]) or None)
    assert slow.recv_multipart()[0] in (b"more", b"last")


def test_large_frames_count_as_in_flight_until_they_are_read(bound: Bound) -> None:
    sockets, clients = bound
    assert sockets.in_flight_bytes == 0
    slow = clients.subscribe(sockets, hwm=1)
    sockets.send(SocketID.iopub, [b"small", bytes(ZERO_COPY_BYTES - 1)])
    assert sockets.in_flight_bytes == 0
    large = bytes(8 << 20)
    for _ in range(10):
        assert sockets.send(SocketID.iopub, [b"large", large])
    in_flight = sockets.in_flight_bytes
    assert 0 < in_flight <= 80 << 20
    for _ in range(11):
        slow.recv_multipart()
    wait_for(lambda: None if sockets.in_flight_bytes else True)


def test_in_flight_bytes_end_with_the_subscriber(bound: Bound) -> None:
    sockets, clients = bound
    slow = clients.subscribe(sockets, hwm=1)
    for _ in range(10):
        assert sockets.send(SocketID.iopub, [b"large", bytes(8 << 20)])
    slow.close(linger=0)
    assert wait_for(sockets.receive_subscription) == b"\x00"
    wait_for(lambda: None if sockets.in_flight_bytes else True)


# --- rubbish --------------------------------------------------------------------------------------


@each
def test_a_frame_beyond_the_limit_ends_its_client_and_nobody_else(
    folder: Path, channel: SocketID
) -> None:
    with bind(describe("tcp", folder), max_frame_bytes=1 << 20) as (sockets, clients):
        clients.connect(channel).send(bytes((1 << 20) + 1))
        friend = clients.connect(channel)
        friend.send(bytes(1 << 20))
        assert receive(sockets, channel)[1] == bytes(1 << 20)
        friend.send(b"again")
        assert receive(sockets, channel)[1] == b"again"


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(1 << 20),
        b"\xff" * (1 << 20),
        bytes(range(256)) * 4096,
        b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL",
        b"",
    ],
)
@pytest.mark.parametrize("channel", SocketID)
def test_bytes_that_are_no_zmq_do_no_harm(bound: Bound, channel: SocketID, rubbish: bytes) -> None:
    sockets, clients = bound
    with socket.create_connection(
        ("127.0.0.1", sockets.connection.ports[channel]), WAIT_S
    ) as stranger:
        # zmq hangs up as soon as it sees what this is.
        with suppress(ConnectionError):
            stranger.sendall(rubbish)
        for known in (SocketID.shell, SocketID.control):
            clients.connect(known).send(b"still here")
            assert receive(sockets, known)[1:] == [b"still here"]
        clients.subscribe(sockets)


@each
def test_odd_multiparts_arrive_as_they_are(bound: Bound, channel: SocketID) -> None:
    sockets, clients = bound
    odd: list[list[bytes]] = [
        [b""],
        [b""] * 5000,
        [b"<IDS|MSG>"] * 3,
        [secrets.token_bytes(100 << 20)],
        [secrets.token_bytes(size) for size in range(200)],
    ]
    client = clients.connect(channel)
    for frames in odd:
        client.send_multipart(frames)
    for frames in odd:
        assert receive(sockets, channel)[1:] == frames
