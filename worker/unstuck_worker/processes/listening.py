"""An address for one process of ours to connect to, which nobody can guess."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

_CREDENTIALS = struct.Struct("=iII")


class Listening:
    """Listens on an abstract AF_UNIX address."""

    def __init__(self, address: str = "") -> None:
        """Listen on a new address, or on one that only the other one knows."""
        self.address = address or os.urandom(16).hex()

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(f"\0{self.address}")
        self._socket.listen(1)
        self._socket.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def accept(self) -> socket.socket | None:
        """Take a connection of this user's, if there is one by now."""
        with suppress(BlockingIOError):
            connection, _ = self._socket.accept()
            connection.setblocking(True)
            if _credentials(connection)[1] == os.getuid():
                return connection
            connection.close()
        return None

    def accept_within(self, limit_s: float) -> socket.socket | None:
        """Wait for a connection of this user's; any user can connect."""
        end_s = time.monotonic() + limit_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            with suppress(TimeoutError):
                if (connection := self.accept()) is not None:
                    return connection
        return None


def peer_of(connection: socket.socket) -> int:
    """Give the process id at the other end."""
    return _credentials(connection)[0]


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, group = _CREDENTIALS.unpack(found)
    return int(pid), int(user), int(group)
