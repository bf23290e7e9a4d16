"""Ask a running kernel on its control channel, which answers whatever its cells do.

Threads: a `Control` is used by one thread at a time.
"""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any, cast

import zmq
from jupyter_client.client import KernelClient

from unstuck.errors import ConfigError, KernelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

LISTENING_S = 0.5
"""How long a connection to the control port may take; here it is made or refused at once."""
_NEEDED = ("control_port", "ip", "transport", "key")
_EVERYWHERE = frozenset({"*", "0.0.0.0", "", "::"})  # noqa: S104 - read, never bound


class NoAnswer(KernelError):
    """A kernel has not answered within its deadline."""


def read_connection(path: Path) -> dict[str, Any]:
    """Read a connection file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError:
        found = None
    if not isinstance(found, dict) or any(name not in found for name in _NEEDED):
        raise ConfigError(f"{path} is no connection file of a kernel")
    return cast("dict[str, Any]", found)


def is_listening(connection: Mapping[str, Any], deadline_s: float = LISTENING_S) -> bool:
    """Tell whether anybody listens where a kernel's control channel should be."""
    ip, port = str(connection["ip"]), connection["control_port"]
    try:
        if connection["transport"] == "ipc":
            with socket.socket(socket.AF_UNIX) as unix:
                unix.settimeout(deadline_s)
                unix.connect(f"{ip}-{port}")
        else:
            address = "127.0.0.1" if ip in _EVERYWHERE else ip
            socket.create_connection((address, int(port)), deadline_s).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


class Control:
    """A client of one kernel's control channel; every wait has a deadline."""

    def __init__(self, connection: Mapping[str, Any]) -> None:
        """Connect to the kernel of a connection file's content."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._client = KernelClient(context=self._context)
        self._client.load_connection_info(cast("Any", dict(connection)))
        self._socket = self._client.connect_control()
        self._socket.linger = 0
        self._replies: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection, and what was not sent."""
        self._socket.close(linger=0)
        self._context.destroy(linger=0)

    def ask(
        self, kind: str, content: Mapping[str, Any] | None = None, *, deadline_s: float
    ) -> dict[str, Any]:
        """Send a request; give the content of its reply.

        Raises:
            NoAnswer: there is none within ``deadline_s``.
        """
        return self.answer(self.send(kind, content), kind, deadline_s=deadline_s)

    def send(self, kind: str, content: Mapping[str, Any] | None = None) -> str:
        """Send a request; give the id that `answer` wants."""
        message = self._client.session.send(self._socket, kind, dict(content or {}))
        assert message is not None
        return str(message["header"]["msg_id"])

    def answer(self, msg_id: str, kind: str, *, deadline_s: float) -> dict[str, Any]:
        """Wait for the reply to a request that was sent.

        Raises:
            NoAnswer: there is none within ``deadline_s``.
        """
        end_s = time.monotonic() + deadline_s
        while msg_id not in self._replies:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not self._socket.poll(int(left_s * 1000) + 1):
                raise NoAnswer(f"no answer to {kind} within {deadline_s:g} s")
            self._take(self._socket.recv_multipart())
        return self._replies.pop(msg_id)

    def _take(self, frames: list[bytes]) -> None:
        """Keep a reply that is signed with the kernel's key: another may have the port now."""
        session = self._client.session
        try:
            _, signed = session.feed_identities(frames)
            reply = session.deserialize(signed)
        except (ValueError, TypeError, IndexError):
            return
        self._replies[str(reply["parent_header"].get("msg_id"))] = dict(reply["content"])
