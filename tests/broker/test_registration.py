"""The handshake of JEP 66, against a launcher that is a real ROUTER socket."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
import zmq

from broker.zmq_clients import WAIT_S, bind
from unstuck.errors import ConfigError
from unstuck.typing import SocketID
from unstuck_broker.connection import read_connection
from unstuck_broker.registration import announcement, register
from unstuck_broker.sockets import exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

KEY = "registration-key"
DELIMITER = b"<IDS|MSG>"
FIELDS: dict[str, Any] = {
    "kernel_id": "kernel-7",
    "transport": "tcp",
    "registration_ip": "127.0.0.1",
    "registration_port": 0,
    "key": KEY,
    "signature_scheme": "hmac-sha256",
}


def sign(content: bytes, key: str = KEY) -> bytes:
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest().encode()


def acknowledge(content: bytes) -> list[bytes]:
    """Answer as a launcher that takes the kernel."""
    answer = json.dumps({"status": "ok", "kernel_id": json.loads(content)["kernel_id"]}).encode()
    return [DELIMITER, sign(answer), answer]


class Launcher:
    """A launcher's registration socket; it answers one kernel.

    Threads: its own one has the socket.
    """

    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        """Answer what a kernel sends with what ``answer`` makes of its content."""
        self.received: list[bytes] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.RCVTIMEO, int(WAIT_S * 1000))
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._thread = threading.Thread(target=self._serve, args=(answer,), daemon=True)
        self._thread.start()

    def _serve(self, answer: Callable[[bytes], list[bytes]]) -> None:
        identity, *self.received = self._socket.recv_multipart()
        self._socket.send_multipart([identity, *answer(self.received[-1])])

    def close(self) -> None:
        self._thread.join(WAIT_S)
        self._socket.close(linger=1000)
        self._context.term()


@pytest.fixture
def launched(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    """Run a launcher that acknowledges, or answers as the test's parameter does."""
    launcher = Launcher(getattr(request, "param", acknowledge))
    yield launcher
    launcher.close()


def write(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**FIELDS, **changes}))
    return path


def test_the_launcher_learns_the_ports_and_other_clients_find_them_in_the_file(
    tmp_path: Path, launched: Launcher
) -> None:
    file = write(tmp_path / "kernel.json", registration_port=launched.port)
    with bind(read_connection(file)) as (sockets, clients):
        connection = sockets.connection
        connection.write()
        register(connection, exchange)
        delimiter, signature, content = launched.received
        assert delimiter == DELIMITER
        assert signature == sign(content)
        told = json.loads(content)
        assert told.pop("kernel_id") == "kernel-7"
        assert told == {f"{channel}_port": str(connection.ports[channel]) for channel in SocketID}
        written = json.loads(file.read_text())
        assert {name: str(written[name]) for name in told} == told
        assert written["registration_port"] == launched.port
        clients.subscribe(sockets)


def test_a_restart_with_the_same_file_chooses_and_tells_ports_again(
    tmp_path: Path, launched: Launcher
) -> None:
    file = write(tmp_path / "kernel.json", registration_port=launched.port, shell_port=1, hb_port=2)
    connection = read_connection(file)
    assert set(connection.ports.values()) == {0}
    with bind(connection) as (sockets, _):
        register(sockets.connection, exchange)
    assert json.loads(launched.received[-1])["shell_port"] != "1"


def test_without_a_registration_port_nobody_is_told(tmp_path: Path) -> None:
    ports = {f"{channel}_port": 1 for channel in SocketID}
    file = write(tmp_path / "kernel.json", registration_port=None, ip="127.0.0.1", **ports)
    register(read_connection(file), refuse_to_exchange)


def refuse_to_exchange(_address: str, _frames: Sequence[bytes]) -> None:
    raise AssertionError("nobody was to be told")


@pytest.mark.parametrize(
    ("changes", "address"),
    [
        ({"registration_port": 5}, "tcp://127.0.0.1:5"),
        ({"registration_port": "5"}, "tcp://127.0.0.1:5"),
        ({"registration_port": 5, "registration_ip": "::1"}, "tcp://[::1]:5"),
        ({"registration_port": 5, "transport": "ipc", "registration_ip": "/a/b"}, "ipc:///a/b-5"),
    ],
)
def test_the_address_is_read_as_launchers_write_it(
    tmp_path: Path, changes: dict[str, Any], address: str
) -> None:
    connection = read_connection(write(tmp_path / "kernel.json", **changes))
    assert connection.registration is not None
    assert connection.registration.address == address
    assert connection.registration.kernel_id == "kernel-7"


def test_the_channels_are_bound_where_the_launcher_is_or_where_it_says(tmp_path: Path) -> None:
    file = tmp_path / "kernel.json"
    assert read_connection(write(file, registration_ip="127.0.0.2")).ip == "127.0.0.2"
    assert read_connection(write(file, ip="127.0.0.3")).ip == "127.0.0.3"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"registration_ip": None}, "registration_ip is None, not a string"),
        ({"registration_port": "many"}, "registration_port is 'many', not a number"),
        ({"registration_port": 70000}, "registration_port is 70000: a port is between 0"),
        ({"kernel_id": 7}, "kernel_id is 7, not a string"),
    ],
)
def test_a_wrong_part_of_the_registration_is_named(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_connection(write(tmp_path / "kernel.json", **changes))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "launched",
    [
        lambda _: [b"no delimiter"],
        lambda _: [DELIMITER],
        lambda _: [DELIMITER, b"", b"{}"],
        lambda _: [DELIMITER, sign(b"{}", "another key"), b"{}"],
        lambda _: [DELIMITER, sign(b"{}"), b"{ }"],
    ],
    indirect=True,
)
def test_an_answer_that_is_not_signed_with_our_key_ends_the_start(
    tmp_path: Path, launched: Launcher
) -> None:
    file = write(tmp_path / "kernel.json", registration_port=launched.port)
    with pytest.raises(ConfigError, match="is not signed with our key"):
        register(read_connection(file), exchange)


def test_a_launcher_that_does_not_answer_ends_the_start(tmp_path: Path) -> None:
    connection = read_connection(write(tmp_path / "kernel.json", registration_port=9))

    def impatient(address: str, frames: Sequence[bytes]) -> list[bytes] | None:
        return exchange(address, frames, wait_s=0.05)

    with pytest.raises(ConfigError, match=r"nobody at tcp:.* has acknowledged"):
        register(connection, impatient)


def test_an_address_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="cannot connect to nonsense"):
        exchange("nonsense", [b"hello"])


def test_without_a_key_nothing_is_signed(tmp_path: Path) -> None:
    connection = read_connection(write(tmp_path / "kernel.json", key=""))
    assert announcement(connection, "k")[:2] == [DELIMITER, b""]
    register(connection, lambda _address, _frames: [DELIMITER, b"", b"{}"])
