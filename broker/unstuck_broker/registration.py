"""The handshake of JEP 66: the kernel chooses its ports and tells the launcher that waits for them.

A message is ``<IDS|MSG> | signature | content``, both ways; the content is one JSON object. The
connection file names the launcher's address in ``registration_ip`` and ``registration_port``.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import msgspec

from unstuck.errors import ConfigError
from unstuck_broker.wire import DELIMITER, make_signer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unstuck_broker.connection import Connection

    Exchange = Callable[[str, Sequence[bytes]], Sequence[bytes] | None]


def register(connection: Connection, exchange: Exchange) -> None:
    """Tell the launcher, if one waits, where the channels are.

    Args:
        connection: with the ports that were bound.
        exchange: sends a message to an address and gives the answer, or None after its deadline.

    Raises:
        ConfigError: the launcher did not answer, or not with our key: it does not know us.
    """
    if connection.registration is None:
        return
    address = connection.registration.address
    answer = exchange(address, announcement(connection, connection.registration.kernel_id))
    if answer is None:
        raise ConfigError(f"nobody at {address} has acknowledged this kernel's ports")
    if not _is_signed(connection, answer):
        raise ConfigError(f"the acknowledgement from {address} is not signed with our key")


def announcement(connection: Connection, kernel_id: str) -> list[bytes]:
    """Build the message with the ports; they are strings in it, as the specification has them."""
    ports = {f"{channel}_port": str(port) for channel, port in connection.ports.items()}
    content = msgspec.json.encode({"kernel_id": kernel_id, **ports})
    return [DELIMITER, _sign(connection, content), content]


def _is_signed(connection: Connection, frames: Sequence[bytes]) -> bool:
    """Tell whether an answer is well formed and signed with the connection's key."""
    if DELIMITER not in frames:
        return False
    rest = frames[list(frames).index(DELIMITER) + 1 :]
    return len(rest) >= 2 and hmac.compare_digest(rest[0], _sign(connection, rest[1]))


def _sign(connection: Connection, content: bytes) -> bytes:
    if not connection.key:
        return b""
    signer = make_signer(connection.key, connection.signature_scheme)
    signer.update(content)
    return signer.hexdigest().encode()
