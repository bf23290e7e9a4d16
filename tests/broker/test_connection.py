"""Connection files: as jupyter_client writes them, and wrong in every way."""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_core.paths import jupyter_runtime_dir

from unstuck.errors import ConfigError
from unstuck.typing import SocketID
from unstuck_broker.connection import Curve, new_connection, read_connection

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

NOBODY = 65534

FIELDS: dict[str, Any] = {
    "shell_port": 5001,
    "iopub_port": 5002,
    "stdin_port": 5003,
    "control_port": 5004,
    "hb_port": 5005,
    "ip": "127.0.0.1",
    "key": "a-key",
    "transport": "tcp",
    "signature_scheme": "hmac-sha512",
    "kernel_name": "unstuck",
}


def write(path: Path, **changes: object) -> Path:
    """Write a connection file; a field that is changed to `...` is left out."""
    fields = {name: value for name, value in {**FIELDS, **changes}.items() if value is not ...}
    path.write_text(json.dumps(fields))
    return path


@contextmanager
def as_nobody() -> Generator[None]:
    """Give up root's right to read and write everything, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kernel-1.json"


def refusal(file: Path) -> str:
    """Give the one line that says why a connection file cannot be used."""
    with pytest.raises(ConfigError) as caught:
        read_connection(file)
    text = str(caught.value)
    assert "\n" not in text
    assert str(file) in text
    return text


# --- reading --------------------------------------------------------------------------------------


def test_all_fields_are_read(file: Path) -> None:
    connection = read_connection(write(file))
    assert connection.path == file
    assert connection.file == str(file)
    assert connection.transport == "tcp"
    assert connection.ip == "127.0.0.1"
    assert connection.ports == {
        SocketID.shell: 5001,
        SocketID.iopub: 5002,
        SocketID.stdin: 5003,
        SocketID.control: 5004,
        SocketID.heartbeat: 5005,
    }
    assert connection.key == b"a-key"
    assert connection.signature_scheme == "hmac-sha512"
    assert connection.kernel_name == "unstuck"
    assert connection.curve is None
    assert not connection.created
    assert connection.endpoint(SocketID.iopub) == "tcp://127.0.0.1:5002"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
@pytest.mark.parametrize("curve", [False, True])
def test_a_file_of_jupyter_client_is_read(file: Path, transport: str, *, curve: bool) -> None:
    pair = zmq.curve_keypair() if curve else None
    ip = "127.0.0.1" if transport == "tcp" else str(file.with_suffix("")) + "-ipc"
    _, fields = write_connection_file(
        str(file),
        key=b"key",
        ip=ip,
        transport=transport,
        curve_publickey=pair and pair[0],
        curve_secretkey=pair and pair[1],
    )
    connection = read_connection(file)
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    for channel in SocketID:
        url = client._make_url(str(channel))  # pyright: ignore[reportPrivateUsage]  # no public way
        assert connection.endpoint(channel) == url
    assert connection.key == client.session.key
    assert connection.signature_scheme == client.session.signature_scheme
    assert connection.curve == (pair and Curve(*pair))
    assert connection.to_json() == fields


def test_fields_with_a_default_may_be_left_out(file: Path) -> None:
    connection = read_connection(
        write(file, transport=..., signature_scheme=..., kernel_name=..., curve_publickey=None)
    )
    assert connection.transport == "tcp"
    assert connection.signature_scheme == "hmac-sha256"
    assert connection.kernel_name == ""
    assert connection.curve is None


@pytest.mark.parametrize(
    ("ip", "endpoint"),
    [
        ("*", "tcp://0.0.0.0:5001"),
        ("", "tcp://127.0.0.1:5001"),
        ("localhost", "tcp://localhost:5001"),
        ("::1", "tcp://[::1]:5001"),
    ],
)
def test_an_address_is_written_as_zmq_wants_it(file: Path, ip: str, endpoint: str) -> None:
    assert read_connection(write(file, ip=ip)).endpoint(SocketID.shell) == endpoint


def test_ipc_paths_stand_beside_the_file_when_none_are_given(file: Path) -> None:
    connection = read_connection(write(file, transport="ipc", ip=""))
    assert connection.endpoint(SocketID.shell) == f"ipc://{file.parent}/kernel-1-ipc-5001"


def test_neither_the_signing_nor_the_secret_key_is_shown_in_a_repr(file: Path) -> None:
    public_key, secret_key = zmq.curve_keypair()
    keys = {"curve_publickey": public_key.decode(), "curve_secretkey": secret_key.decode()}
    connection = read_connection(write(file, key="secret!", **keys))
    for text in (repr(connection), str(connection), repr(connection.curve)):
        assert "secret!" not in text
        assert secret_key.decode() not in text


# --- files that cannot be used --------------------------------------------------------------------


def test_a_missing_file_is_named(file: Path) -> None:
    assert refusal(file) == f"connection file {file} does not exist"


def test_a_folder_is_no_connection_file(file: Path) -> None:
    file.mkdir()
    assert refusal(file) == f"cannot read connection file {file}: Is a directory"


def test_a_file_that_may_not_be_read_is_named(file: Path) -> None:
    write(file).chmod(0)
    with as_nobody():
        assert refusal(file) == f"cannot read connection file {file}: Permission denied"


@pytest.mark.parametrize("text", [b"", b"{", b"no json", b"\xff\xfe", b"{" * 100_000, bytes(100)])
def test_a_file_that_is_no_json_is_refused(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    assert "is no JSON: " in refusal(file)


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "1"])
def test_a_file_that_is_no_object_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    assert refusal(file) == f"connection file {file} is no JSON object"


def test_all_missing_fields_are_named_at_once(file: Path) -> None:
    write(file, shell_port=..., key=..., hb_port=...)
    assert refusal(file) == f"connection file {file}: key, hb_port, shell_port missing"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("transport", "udp", "unknown transport 'udp': it is tcp or ipc"),
        ("transport", 5, "transport is 5, not a string"),
        ("ip", 127, "ip is 127, not a string"),
        ("key", None, "key is None, not a string"),
        ("key", ["k"], "key is ['k'], not a string"),
        ("signature_scheme", 256, "signature_scheme is 256, not a string"),
        ("kernel_name", {}, "kernel_name is {}, not a string"),
        ("shell_port", "5001", "shell_port is '5001', not a number"),
        ("shell_port", 1.5, "shell_port is 1.5, not a number"),
        ("shell_port", True, "shell_port is True, not a number"),
        ("hb_port", None, "hb_port is None, not a number"),
        ("hb_port", -1, "hb_port is -1: a port is between 0 (to be chosen) and 65535"),
        ("hb_port", 65536, "hb_port is 65536: a port is between 0 (to be chosen) and 65535"),
    ],
)
def test_a_field_with_a_wrong_value_is_named(
    file: Path, field: str, value: object, reason: str
) -> None:
    assert refusal(write(file, **{field: value})) == f"connection file {file}: {reason}"


@pytest.mark.parametrize("bad", ["", "short", "x" * 41, "ü" * 40, '"' * 40, 5])
@pytest.mark.parametrize("name", ["curve_publickey", "curve_secretkey"])
def test_bad_encryption_keys_are_refused_without_showing_them(
    file: Path, name: str, bad: object
) -> None:
    keys = dict.fromkeys(("curve_publickey", "curve_secretkey"), "0" * 40)
    text = refusal(write(file, **{**keys, name: bad}))
    assert name in text
    assert "xxxx" not in text


@pytest.mark.parametrize("name", ["curve_publickey", "curve_secretkey"])
def test_one_encryption_key_alone_is_refused(file: Path, name: str) -> None:
    assert "encryption needs both keys" in refusal(write(file, **{name: "0" * 40}))


# --- writing --------------------------------------------------------------------------------------


def test_ports_are_written_back_and_unknown_fields_kept(file: Path) -> None:
    ports = dict.fromkeys(("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port"), 0)
    write(file, **ports, jupyter_session="notebook.ipynb", odd={"deep": [1]})
    connection = read_connection(file)
    chosen = {channel: 6000 + at for at, channel in enumerate(SocketID)}
    connection.with_ports(chosen).write()
    again = read_connection(file)
    assert again.ports == chosen
    assert again.key == connection.key
    assert again.fields["jupyter_session"] == "notebook.ipynb"
    assert again.fields["odd"] == {"deep": [1]}
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    assert client.shell_port == chosen[SocketID.shell]


def test_only_the_owner_can_read_a_written_file_and_nothing_else_is_left(file: Path) -> None:
    write(file).chmod(0o644)
    umask = os.umask(0)
    try:
        read_connection(file).write()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_a_clear_error_and_stays_as_it_was(file: Path) -> None:
    connection = new_connection(file.parent / "no folder" / "kernel.json")
    (file.parent / "no folder").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"cannot write connection file .*: (File exists|Not a)"):
        connection.write()
    connection.remove()
    file.mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        new_connection(file).write()
    assert sorted(path.name for path in file.parent.iterdir()) == ["kernel-1.json", "no folder"]


def test_a_read_only_folder_is_a_clear_error(file: Path) -> None:
    file.parent.chmod(0o500)
    try:
        with as_nobody(), pytest.raises(ConfigError, match="Permission denied"):
            new_connection(file).write()
    finally:
        file.parent.chmod(0o700)
    assert not file.exists()


# --- making and removing --------------------------------------------------------------------------


def test_a_new_connection_lives_in_the_runtime_folder_with_a_key_of_its_own() -> None:
    one, two = new_connection(kernel_name="unstuck"), new_connection()
    assert str(one.path.parent) == jupyter_runtime_dir()
    assert one.path != two.path
    assert one.key != two.key
    assert len(one.key) == 64
    assert set(one.ports.values()) == {0}
    assert not one.path.exists()
    one.write()
    assert read_connection(one.path).kernel_name == "unstuck"
    one.remove()
    assert not one.path.exists()
    one.remove()


def test_a_file_that_somebody_else_made_is_never_removed(file: Path) -> None:
    read_connection(write(file)).remove()
    assert file.exists()
