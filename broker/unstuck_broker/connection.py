"""The connection file: where clients find the kernel, and the key they sign with.

A file is read as jupyter_client writes it. Ports that are 0 are chosen when the sockets are bound,
and written back with everything else that the file had, also what we do not know.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from msgspec import Struct, structs
from typing_extensions import override

from unstuck.errors import ConfigError
from unstuck.typing import SocketID

if TYPE_CHECKING:
    from pathlib import Path

Transport = Literal["tcp", "ipc"]

_Z85 = frozenset(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)
_KEY_BYTES = 32


class Curve(Struct, frozen=True):
    """The key pair of a CurveZMQ server, in Z85."""

    public_key: bytes
    secret_key: bytes

    @override
    def __repr__(self) -> str:
        return f"Curve({self.public_key!r})"


class Registration(Struct, frozen=True):
    """Where a launcher waits for the ports that the kernel has chosen (JEP 66)."""

    kernel_id: str
    address: str
    """As zmq writes it."""


class Connection(Struct, frozen=True, kw_only=True):
    """Where the five channels are, and how messages are signed and encrypted."""

    file: str
    """The connection file."""
    transport: Transport = "tcp"
    ip: str = "127.0.0.1"
    """An address, or for ipc what the sockets' paths start with."""
    ports: dict[SocketID, int]
    """0 is a port to be chosen."""
    key: bytes
    signature_scheme: str = "hmac-sha256"
    kernel_name: str = ""
    curve: Curve | None = None
    registration: Registration | None = None
    created: bool = False
    """The file is ours: `remove` deletes it."""
    fields: dict[str, Any] = {}
    """What the file said, known or not."""

    @override
    def __repr__(self) -> str:
        # Without the keys: this text may end up in a log.
        return f"Connection({self.file!r})"

    @property
    def path(self) -> Path:
        """The connection file."""
        from pathlib import Path  # noqa: PLC0415 - 2 ms, and few starts need it

        return Path(self.file)

    def endpoint(self, channel: SocketID) -> str:
        """Give the address of a channel as zmq writes it."""
        return _endpoint(self.transport, self.ip, self.ports[channel])

    def with_ports(self, ports: dict[SocketID, int]) -> Connection:
        """Give the same connection with other ports."""
        return structs.replace(self, ports=ports)

    def to_json(self) -> dict[str, Any]:
        """Give the fields of the connection file."""
        known: dict[str, Any] = {
            **{_port_name(channel): port for channel, port in self.ports.items()},
            "ip": self.ip,
            "key": self.key.decode(),
            "transport": self.transport,
            "signature_scheme": self.signature_scheme,
            "kernel_name": self.kernel_name,
        }
        if self.curve is not None:
            known["curve_publickey"] = self.curve.public_key.decode()
            known["curve_secretkey"] = self.curve.secret_key.decode()
        return {**self.fields, **known}

    def write(self) -> None:
        """Write the file in one step, readable by its owner alone.

        Raises:
            ConfigError: the folder or the file cannot be written.
        """
        data = msgspec.json.format(msgspec.json.encode(self.to_json()), indent=2)
        path = self.path
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.unlink(missing_ok=True)
            # Mode 0600: whoever reads the key in it can run code as this user.
            handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write connection file {path}: {error.strerror}") from None

    def remove(self) -> None:
        """Delete the file if we made it; without complaint if it is gone or cannot be deleted."""
        if self.created:
            with contextlib.suppress(OSError):
                self.path.unlink()


def read_connection(file: str | os.PathLike[str]) -> Connection:
    """Read a connection file.

    Raises:
        ConfigError: it is missing, no JSON object, lacks a field, or a field has a wrong value.
    """
    path = _absolute(file)
    try:
        with open(path, "rb") as opened:  # noqa: PTH123 - see `Connection.path`
            fields = msgspec.json.decode(opened.read())
    except FileNotFoundError:
        raise ConfigError(f"connection file {path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"cannot read connection file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"connection file {path} is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"connection file {path} is no JSON object")
    try:
        return _connection(path, cast("dict[str, Any]", fields))
    except ConfigError as error:
        raise ConfigError(f"connection file {path}: {error}") from None


def new_connection(
    file: str | os.PathLike[str] | None = None, *, kernel_name: str = ""
) -> Connection:
    """Describe a connection with a new key and ports to be chosen; its file is not written yet.

    Args:
        file: the file to be; by default one of its own in Jupyter's runtime folder.
        kernel_name: written into the file for those who list running kernels.
    """
    if file is None:
        file = os.path.join(_runtime_folder(), f"kernel-{os.urandom(16).hex()}.json")  # noqa: PTH118
    return Connection(
        file=_absolute(file),
        ports=dict.fromkeys(SocketID, 0),
        key=os.urandom(_KEY_BYTES).hex().encode(),
        kernel_name=kernel_name,
        created=True,
    )


def _absolute(file: str | os.PathLike[str]) -> str:
    return os.path.join(os.getcwd(), os.fspath(file))  # noqa: PTH109, PTH118 - as above


def _runtime_folder() -> str:
    """Find the folder where Jupyter keeps connection files."""
    # Imported here: it costs a third of the broker's start, which nearly never needs it.
    from jupyter_core.paths import jupyter_runtime_dir  # noqa: PLC0415

    return str(jupyter_runtime_dir())


def _port_name(channel: SocketID) -> str:
    return f"{channel}_port"


def _connection(file: str, fields: dict[str, Any]) -> Connection:
    """Check the fields of a connection file.

    Raises:
        ConfigError: the first field that is wrong, or all that are missing.
    """
    transport = _transport(fields)
    registration = _registration(fields, transport)
    if registration is not None:
        # The ports of an earlier start are in the file too: they are chosen anew.
        chosen = dict.fromkeys(map(_port_name, SocketID), 0)
        fields = {"ip": fields.get("registration_ip"), **fields, **chosen}
    needed = ["ip", "key", *map(_port_name, SocketID)]
    if missing := [name for name in needed if name not in fields]:
        raise ConfigError(f"{', '.join(missing)} missing")
    ip = _text(fields, "ip")
    if ip in ("", "*"):
        ip = {"": "127.0.0.1", "*": "0.0.0.0"}[ip] if transport == "tcp" else ""  # noqa: S104  # the user said so
    if not ip:
        ip = f"{os.path.splitext(file)[0]}-ipc"  # noqa: PTH122 - as above
    return Connection(
        file=file,
        transport=transport,
        ip=ip,
        ports={channel: _port(fields, _port_name(channel), transport) for channel in SocketID},
        key=_text(fields, "key").encode(),
        signature_scheme=_text(fields, "signature_scheme", "hmac-sha256"),
        kernel_name=_text(fields, "kernel_name", ""),
        curve=_curve(fields),
        registration=registration,
        fields=fields,
    )


def _transport(fields: dict[str, Any]) -> Transport:
    """Take the transport.

    Raises:
        ConfigError: it is none of ours.
    """
    match _text(fields, "transport", "tcp"):
        case "tcp":
            return "tcp"
        case "ipc":
            return "ipc"
        case other:
            raise ConfigError(f"unknown transport {other!r}: it is tcp or ipc")


def _registration(fields: dict[str, Any], transport: Transport) -> Registration | None:
    """Take the address of the launcher that waits for our ports, if one does.

    Raises:
        ConfigError: a part of it is missing or wrong.
    """
    if fields.get("registration_port") is None:
        return None
    ip = _text(fields, "registration_ip")
    port = fields["registration_port"]
    if isinstance(port, str) and port.isdecimal():
        port = int(port)  # xeus and its launchers write a string.
    port = _port({"registration_port": port}, "registration_port", transport)
    kernel_id = _text(fields, "kernel_id", "")
    return Registration(kernel_id, _endpoint(transport, ip, port))


def _endpoint(transport: Transport, ip: str, port: int) -> str:
    """Give an address as zmq writes it."""
    if transport == "ipc":
        return f"ipc://{ip}-{port}"
    return f"tcp://[{ip}]:{port}" if ":" in ip else f"tcp://{ip}:{port}"


def _text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    """Take a string.

    Raises:
        ConfigError: it is none.
    """
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r:.60}, not a string")
    return value


def _port(fields: dict[str, Any], name: str, transport: str) -> int:
    """Take a port.

    Raises:
        ConfigError: it is no number, or no port can have it.
    """
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r:.60}, not a number")
    if value < 0 or (transport == "tcp" and value > 65535):
        raise ConfigError(f"{name} is {value}: a port is between 0 (to be chosen) and 65535")
    return value


def _curve(fields: dict[str, Any]) -> Curve | None:
    """Take the CurveZMQ keys, which are both there or both not.

    Raises:
        ConfigError: only one is there, or one is no Z85 text of 40 characters.
    """
    names = ("curve_publickey", "curve_secretkey")
    if all(fields.get(name) is None for name in names):
        return None
    keys: list[bytes] = []
    for name in names:
        if fields.get(name) is None:
            raise ConfigError(f"{name} missing: encryption needs both keys")
        value = _text(fields, name)
        if len(value) != 40 or not _Z85.issuperset(value):
            # The secret key is not shown.
            raise ConfigError(f"{name} is no Z85 key of 40 characters")
        keys.append(value.encode())
    return Curve(*keys)
