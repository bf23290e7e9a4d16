"""Control without zmq's thread: connections that come, stall, go, flood and lie."""

from __future__ import annotations

import os
import resource
import select
import socket
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.zmq_clients import WAIT_S, Bound, bind, describe, hear, receive, wait_for
from unstuck.typing import SocketID
from unstuck_broker import router as router_module
from unstuck_broker.router import Router
from unstuck_broker.zmqchannel import ZmqChannel
from unstuck_broker.zmtp import GREETING, encode

if TYPE_CHECKING:
    from collections.abc import Generator

READY = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
MAX_FRAME_BYTES = 1 << 20


@contextmanager
def listening() -> Generator[Router]:
    """Run a router without the other sockets."""
    with closing_router(Router(("127.0.0.1", 0), MAX_FRAME_BYTES)) as router:
        yield router


@contextmanager
def closing_router(router: Router) -> Generator[Router]:
    try:
        yield router
    finally:
        router.close(0)


def connect(router: Router, *, greets: bool = True) -> socket.socket:
    """Make a plain connection, which may speak as a DEALER does."""
    made = socket.create_connection(("127.0.0.1", router.port), WAIT_S)
    made.settimeout(WAIT_S)
    if greets:
        made.sendall(GREETING + READY)
    return made


def take(router: Router) -> list[bytes | memoryview]:
    """Wait for a message."""
    return wait_for(router.receive)


def is_closed(router: Router, sock: socket.socket) -> bool:
    """Wait until the other side has hung up; what it has sent before is passed over."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        router.pending()
        if poll.poll(10):
            try:
                if not sock.recv(1 << 16):
                    return True
            except ConnectionError:
                return True


# --- which sockets --------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "tcp6", "ipc", "curve", "ipc-curve"])
def test_control_is_zmqs_where_there_is_more_than_plain_tcp(transport: str, folder: Path) -> None:
    with bind(describe(transport, folder)) as (sockets, _):
        kinds = {
            channel: type(made)
            for channel, made in sockets._channels.items()  # pyright: ignore[reportPrivateUsage] # nothing else tells
        }
    control = Router if transport in ("tcp", "tcp6") else ZmqChannel
    assert kinds == {**dict.fromkeys(SocketID, ZmqChannel), SocketID.control: control}


# --- connections ----------------------------------------------------------------------------------


def test_clients_without_a_name_get_names_of_their_own(bound: Bound) -> None:
    sockets, clients = bound
    dealers = [clients.connect(SocketID.control) for _ in range(20)]
    names: dict[bytes, int] = {}
    for number, dealer in enumerate(dealers):
        dealer.send(b"%d" % number)
        name, text = receive(sockets, SocketID.control)
        assert int(text) == number
        names[bytes(name)] = number
    assert len(names) == 20
    for name, number in names.items():
        assert sockets.send(SocketID.control, [name, b"to %d" % number])
        assert hear(sockets, dealers[number]) == [b"to %d" % number]


def test_the_older_of_two_with_one_name_is_answered_when_the_newer_has_gone(bound: Bound) -> None:
    sockets, clients = bound
    older = clients.connect(SocketID.control, identity=b"twin")
    older.send(b"older")
    assert receive(sockets, SocketID.control) == [b"twin", b"older"]
    newer = clients.connect(SocketID.control, identity=b"twin")
    newer.send(b"newer")
    assert receive(sockets, SocketID.control) == [b"twin", b"newer"]
    assert sockets.send(SocketID.control, [b"twin", b"one"])
    assert hear(sockets, newer) == [b"one"]
    newer.close(linger=0)

    def answer() -> bytes | None:
        sockets.pending(SocketID.control)
        sockets.send(SocketID.control, [b"twin", b"two"])
        return older.recv() if older.poll(10) else None

    assert wait_for(answer) == b"two"


def test_a_message_that_comes_with_the_greeting_is_heard() -> None:
    with listening() as router, closing(connect(router, greets=False)) as client:
        client.sendall(GREETING + READY + encode([b"one"]) + encode([b"two", b""]))
        assert take(router)[1:] == [b"one"]
        assert take(router)[1:] == [b"two", b""]
        assert router.receive() is None


def test_what_a_client_has_asked_before_it_left_is_heard() -> None:
    with listening() as router:
        with closing(connect(router)) as client:
            client.sendall(encode([b"last words"]))
        name, text = take(router)
        assert text == b"last words"
        assert router.send([name, b"nobody hears this"])


def test_who_speaks_something_else_is_hung_up_on(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as router, closing(connect(router, greets=False)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert is_closed(router, stranger)
    line = "unstuck disconnected channel=control why='what connects is no zmq socket'"
    assert line in capfd.readouterr().err


def test_who_says_nothing_is_left_when_another_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        listening() as router,
        closing(connect(router, greets=False)) as silent,
        closing(connect(router)) as known,
    ):
        known.sendall(encode([b"hello"]))
        take(router)
        monkeypatch.setattr(router_module, "HANDSHAKE_S", 0.0)
        with closing(connect(router)):
            assert is_closed(router, silent)
        known.sendall(encode([b"still here"]))
        assert take(router)[1] == b"still here"


def test_too_many_clients_are_turned_away_and_the_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(router_module, "MAX_PEERS", 2)
    with listening() as router:
        first, second = connect(router), connect(router)
        with closing(first), closing(second):
            for one in (first, second):
                one.sendall(encode([b"hello"]))
                assert take(router)[1] == b"hello"
            with closing(connect(router)) as third:
                assert is_closed(router, third)
            first.close()
            second.sendall(encode([b"still here"]))
            assert take(router)[1] == b"still here"
            with closing(connect(router)) as fourth:
                fourth.sendall(encode([b"room again"]))
                assert take(router)[1] == b"room again"


def test_without_descriptors_nobody_is_let_in_and_nothing_spins() -> None:
    with listening() as router, closing(connect(router)) as known:
        known.sendall(encode([b"hello"]))
        take(router)
        poll = select.poll()
        poll.register(router.fileno(), select.POLLIN)
        stranger = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        taken = exhaust()
        try:
            stranger.connect(("127.0.0.1", router.port))
            assert poll.poll(WAIT_S * 1000)
            assert not router.pending()
            assert not poll.poll(0), "the loop would go round and round"
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        known.sendall(encode([b"still here"]))
        assert take(router)[1] == b"still here"
        stranger.sendall(GREETING + READY + encode([b"late"]))
        with closing(connect(router)):  # The next one opens the door for both.
            assert take(router)[1] == b"late"
        stranger.close()


def exhaust() -> list[int]:
    """Take all descriptors that are left."""
    taken: list[int] = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return taken


# --- clients that do not read ---------------------------------------------------------------------


def test_a_client_that_reads_late_gets_everything_in_order() -> None:
    with listening() as router, closing(connect(router)) as client:
        client.sendall(encode([b"hello"]))
        name, _ = take(router)
        for number in range(40):
            assert router.send([name, b"%d" % number, bytes(1 << 20)])
        greeting = b""
        while len(greeting) < len(GREETING):
            greeting += client.recv(len(GREETING) - len(greeting))
        expected = b"".join(encode([b"%d" % number, bytes(1 << 20)]) for number in range(40))
        client.settimeout(0.01)
        got = bytearray()
        while len(got) < len(expected):
            router.pending()
            try:
                got += client.recv(1 << 20)
            except TimeoutError:
                continue
        ready, answers = got[: got.index(b"\x01\x010")], got[got.index(b"\x01\x010") :]
        assert b"READY" in ready
        assert answers == expected[: len(answers)]


def test_answers_to_who_never_reads_are_dropped_at_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(router_module, "MAX_UNSENT_BYTES", 1 << 20)
    with listening() as router, closing(connect(router)) as client:
        client.sendall(encode([b"hello"]))
        name, _ = take(router)
        taken = 0
        while router.send([name, bytes(1 << 18)]):
            taken += 1
            assert taken < 1000
        # It still can ask.
        client.sendall(encode([b"again"]))
        assert take(router)[1] == b"again"


def test_pings_of_who_never_reads_cost_no_memory_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(router_module, "MAX_UNSENT_BYTES", 1 << 16)
    ping = b"\x04\x07\x04PING\0\0"
    with listening() as router, closing(connect(router)) as client:
        client.settimeout(0.01)
        for _ in range(2000):
            try:
                client.sendall(ping * 1000)
            except TimeoutError:
                break
            router.pending()
        [connection] = router._connections.values()  # pyright: ignore[reportPrivateUsage] # memory has no other face
        assert len(connection.unsent) < 1 << 20


def test_closing_waits_a_moment_for_a_client_that_reads(bound: Bound) -> None:
    sockets, clients = bound
    client = clients.connect(SocketID.control)
    client.send(b"hello")
    name, _ = receive(sockets, SocketID.control)
    large = bytes(30 << 20)
    assert sockets.send(SocketID.control, [name, large])
    sockets.close(linger_ms=int(WAIT_S * 1000))
    assert client.recv() == large
