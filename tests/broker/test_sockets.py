"""Binding the five sockets: every transport, encryption, paths and ports that are taken."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient

from broker.zmq_clients import WAIT_S, Bound, Clients, bind, describe, fill, receive, wait_for
from unstuck.errors import ConfigError
from unstuck.typing import SocketID
from unstuck_broker.connection import Curve
from unstuck_broker.sockets import Sockets
from unstuck_broker.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    ZmqSocket = zmq.Socket[bytes]

ROUTERS = (SocketID.shell, SocketID.control, SocketID.stdin)
TRANSPORTS = ("tcp", "tcp6", "ipc", "curve", "ipc-curve")


@pytest.fixture(params=TRANSPORTS)
def every_transport(request: pytest.FixtureRequest, folder: Path) -> Iterator[Bound]:
    with bind(describe(request.param, folder)) as both:
        yield both


# --- every transport ------------------------------------------------------------------------------


def test_requests_come_in_and_replies_go_out_on_every_transport(every_transport: Bound) -> None:
    sockets, clients = every_transport
    assert 0 not in sockets.connection.ports.values()
    for channel in ROUTERS:
        client = clients.connect(channel)
        client.send_multipart([b"one", b"", b"three"])
        identity, *frames = receive(sockets, channel)
        assert frames == [b"one", b"", b"three"]
        assert sockets.receive(channel) is None
        assert sockets.send(channel, [identity, b"reply", b""])
        assert client.recv_multipart() == [b"reply", b""]


def test_subscribers_get_what_is_published_on_every_transport(every_transport: Bound) -> None:
    sockets, clients = every_transport
    one = clients.subscribe(sockets)
    two = clients.subscribe(sockets)
    assert sockets.send(SocketID.iopub, [b"topic", b"text"])
    assert one.recv_multipart() == two.recv_multipart() == [b"topic", b"text"]


def test_heartbeats_come_back_on_every_transport(every_transport: Bound) -> None:
    sockets, clients = every_transport
    for kind in (zmq.REQ, zmq.DEALER):
        client = clients.connect(SocketID.heartbeat, kind)
        client.send(b"ping")
        wait_for(lambda: sockets.pending(SocketID.heartbeat) or None)
        sockets.echo_heartbeat()
        assert client.recv() == b"ping"


@pytest.mark.parametrize("transport", ["tcp", "ipc", "curve", "ipc-curve"])
def test_jupyter_client_talks_with_us_on_every_transport(transport: str, folder: Path) -> None:
    with bind(describe(transport, folder)) as (sockets, _):
        connection = sockets.connection
        connection.write()
        wire = Wire(connection.key, connection.signature_scheme, "session", "ada", 1)
        client = BlockingKernelClient(connection_file=str(connection.path))
        client.load_connection_file()
        client.start_channels()
        try:
            assert wait_for(sockets.receive_subscription) == b"\x01"
            message_id = client.kernel_info()
            request = wire.parse(SocketID.shell, receive(sockets, SocketID.shell))
            assert request.header.msg_id == message_id
            for channel, idents in (
                (SocketID.iopub, [b"status"]),
                (SocketID.shell, request.idents),
            ):
                frames = wire.serialize(
                    idents,
                    "kernel_info_reply",
                    b'{"status":"ok"}',
                    date="2026-11-23T12:00:00Z",
                    parent_header=request.header_json,
                )
                assert sockets.send(channel, frames)
            assert client.get_iopub_msg(timeout=WAIT_S)["msg_type"] == "kernel_info_reply"
            reply = client.get_shell_msg(timeout=WAIT_S)
            assert reply["parent_header"]["msg_id"] == message_id
            wait_for(lambda: sockets.pending(SocketID.heartbeat) or None)
            sockets.echo_heartbeat()
            wait_for(lambda: client.hb_channel.is_beating() or None)
        finally:
            client.stop_channels()
            client.context.destroy(linger=0)


# --- binding --------------------------------------------------------------------------------------


def test_iopub_is_bound_before_all_others(bound: Bound) -> None:
    sockets, _ = bound
    assert next(iter(sockets._channels)) is SocketID.iopub  # pyright: ignore[reportPrivateUsage] # the order is a promise


def test_chosen_ports_are_given_and_given_ports_are_kept(folder: Path) -> None:
    with bind(describe("tcp", folder)) as (sockets, _):
        chosen = sockets.connection
    assert len(set(chosen.ports.values())) == 5
    with bind(chosen) as (sockets, _):
        assert sockets.connection == chosen


@pytest.mark.parametrize("channel", SocketID)
def test_a_port_in_use_is_named_and_nothing_stays_bound(folder: Path, channel: SocketID) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        connection = describe("tcp", folder)
        mixed = connection.with_ports({**connection.ports, channel: port})
        with pytest.raises(ConfigError) as caught:
            Sockets.bind(mixed)
        assert str(caught.value) == (
            f"cannot bind the {channel} channel to tcp://127.0.0.1:{port}: Address already in use"
        )
    with bind(mixed) as (sockets, _):
        assert sockets.connection.ports[channel] == port


def test_a_port_that_becomes_free_is_waited_for(folder: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    connection = describe("tcp", folder)
    mixed = connection.with_ports({**connection.ports, SocketID.heartbeat: taken.getsockname()[1]})
    free = threading.Timer(0.1, taken.close)
    free.start()
    with bind(mixed, retry_s=WAIT_S) as (sockets, _):
        assert sockets.connection.ports[SocketID.heartbeat] == mixed.ports[SocketID.heartbeat]
    free.join(WAIT_S)


@pytest.mark.parametrize("ip", ["203.0.113.1", "no such host", "127.0.0.1:1", "2001:db8::1"])
def test_an_address_that_is_not_ours_is_refused(folder: Path, ip: str) -> None:
    connection = msgspec.structs.replace(describe("tcp", folder), ip=ip)
    with pytest.raises(ConfigError, match="cannot bind the iopub channel to tcp://"):
        Sockets.bind(connection)


def test_encryption_keys_that_are_no_pair_are_refused(folder: Path) -> None:
    one, two = zmq.curve_keypair(), zmq.curve_keypair()
    for curve, reason in (
        (Curve(one[0], two[1]), "curve_publickey is not the public key of curve_secretkey"),
        (Curve(one[0], b"#" * 40), "curve_secretkey is no Z85 key"),
    ):
        connection = msgspec.structs.replace(describe("tcp", folder), curve=curve)
        with pytest.raises(ConfigError, match=reason) as caught:
            Sockets.bind(connection)
        assert two[1].decode() not in str(caught.value)


def test_a_client_without_the_right_key_is_not_heard(folder: Path) -> None:
    with bind(describe("curve", folder)) as (sockets, clients):
        plain = Clients(msgspec.structs.replace(sockets.connection, curve=None))
        wrong = Clients(
            msgspec.structs.replace(sockets.connection, curve=Curve(*zmq.curve_keypair()))
        )
        for strangers in (plain, wrong):
            stranger = strangers.connect(SocketID.shell)
            stranger.send(b"let me in")
            strangers.connect(SocketID.iopub, zmq.SUB)
        clients.subscribe(sockets)
        clients.connect(SocketID.shell).send(b"the friend")
        assert receive(sockets, SocketID.shell)[1:] == [b"the friend"]
        assert sockets.receive(SocketID.shell) is None
        assert sockets.receive_subscription() is None
        plain.close()
        wrong.close()


# --- ipc ------------------------------------------------------------------------------------------


def test_ipc_paths_are_for_this_user_alone_and_go_with_the_kernel(folder: Path) -> None:
    umask = os.umask(0)
    try:
        with bind(describe("ipc", folder)):
            paths = sorted(folder.iterdir())
            assert [path.name for path in paths] == [f"k-{port}" for port in range(1, 6)]
            for path in paths:
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        assert os.umask(umask) == 0
    assert list(folder.iterdir()) == []


def test_ipc_ports_avoid_what_is_there(folder: Path) -> None:
    (folder / "k-2").touch()
    connection = describe("ipc", folder)
    mixed = connection.with_ports({**connection.ports, SocketID.heartbeat: 3})
    with bind(mixed) as (sockets, _):
        assert sorted(sockets.connection.ports.values()) == [1, 3, 4, 5, 6]
    assert [path.name for path in folder.iterdir()] == ["k-2"]


def test_a_stale_ipc_socket_is_replaced(folder: Path) -> None:
    path = folder / "k-7"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    connection = describe("ipc", folder)
    with bind(connection.with_ports({**connection.ports, SocketID.shell: 7})) as (sockets, clients):
        clients.connect(SocketID.shell).send(b"hello")
        assert receive(sockets, SocketID.shell)[1:] == [b"hello"]


def test_the_ipc_socket_of_a_living_kernel_is_not_taken_away(folder: Path) -> None:
    with bind(describe("ipc", folder)) as (sockets, clients):
        with pytest.raises(ConfigError, match=r"iopub channel to ipc://.*: Address already in use"):
            Sockets.bind(sockets.connection)
        clients.connect(SocketID.shell).send(b"still here")
        assert receive(sockets, SocketID.shell)[1:] == [b"still here"]


def test_a_file_that_is_no_socket_is_never_deleted(folder: Path) -> None:
    precious = folder / "k-7"
    precious.write_text("precious")
    connection = describe("ipc", folder)
    with pytest.raises(ConfigError, match=r"shell channel to ipc://.*k-7: File exists"):
        Sockets.bind(connection.with_ports({**connection.ports, SocketID.shell: 7}))
    assert precious.read_text() == "precious"
    assert list(folder.iterdir()) == [precious]


@pytest.mark.parametrize(
    ("ip", "reason"), [("x" * 200, "File name too long"), ("no/such/folder", "No such file")]
)
def test_an_ipc_path_that_cannot_be_is_refused(folder: Path, ip: str, reason: str) -> None:
    connection = msgspec.structs.replace(describe("ipc", folder), ip=str(folder / ip))
    with pytest.raises(ConfigError, match=reason):
        Sockets.bind(connection)


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [SocketID.shell, SocketID.control])
def test_the_last_replies_get_out(folder: Path, channel: SocketID) -> None:
    with bind(describe("tcp", folder)) as (sockets, clients):
        client = clients.connect(channel, hwm=0)
        client.send(b"hello")
        identity, _ = receive(sockets, channel)
        for number in range(1000):
            assert sockets.send(channel, [identity, b"%d" % number])
        sockets.close(linger_ms=int(WAIT_S * 1000))
        assert [int(client.recv()) for _ in range(1000)] == list(range(1000))


def test_closing_does_not_wait_for_who_does_not_read(bound: Bound) -> None:
    sockets, clients = bound
    clients.subscribe(sockets, hwm=1)
    fill(sockets, 1 << 20)
    sockets.close(linger_ms=50)
    sockets.close()


def test_the_broker_imports_nothing_of_zmq_that_it_does_not_need() -> None:
    code = "import sys, json, unstuck_broker.sockets; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
        timeout=WAIT_S,
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"zmq.asyncio", "zmq.auth", "zmq.utils.garbage", "zmq.eventloop"}
    assert not loaded & {"asyncio", "tornado", "traitlets", "jupyter_client", "jupyter_core"}
