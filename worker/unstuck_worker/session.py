"""What libraries use of ``kernel.session``: messages as dicts, and sending one on iopub.

There is no socket and no key in the worker: the broker adds signature and header.
"""

from __future__ import annotations

import getpass
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from unstuck import kernel_protocol_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from unstuck_worker.comms import Publish


class Channel:
    """Stand for a socket of the broker where a library wants to be handed one."""

    def __init__(self, name: str) -> None:
        """Name the channel, as the messaging specification does."""
        self.name = name
        self.closed = False

    def __repr__(self) -> str:
        """Say that there is no socket."""
        return f"<{self.name} of the broker: send through kernel.session.send>"

    def schedule(self, call: Callable[[], object]) -> None:
        """Call at once: every thread may send (ipykernel hands the call to its IO thread)."""
        call()

    def flush(self, *_ignored: object) -> None:
        """Do nothing: messages leave in the order of their sending."""


class KernelSession:
    """The part of jupyter_client's Session that makes and sends iopub messages."""

    def __init__(self, session: str, publish: Publish) -> None:
        """Send through ``publish``; ``session`` is the kernel's session id."""
        self.session = session
        self.username = _username()
        self.metadata: dict[str, Any] = {}
        self.key = b""
        self.auth = None
        self._publish = publish
        self._number = 0

    @property
    def msg_id(self) -> str:
        """Give the next message id."""
        self._number += 1
        return f"{uuid.uuid4()}_{self._number}"

    def msg_header(self, msg_type: str) -> dict[str, Any]:
        """Make the header of a message of that type."""
        return {
            "msg_id": self.msg_id,
            "msg_type": msg_type,
            "username": self.username,
            "session": self.session,
            "date": datetime.now(UTC),
            "version": kernel_protocol_version,
        }

    def msg(
        self,
        msg_type: str,
        content: dict[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
        header: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Make a message as a dict."""
        header = self.msg_header(msg_type) if header is None else header
        return {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": header_of(parent),
            "content": content or {},
            "metadata": {**self.metadata, **(metadata or {})},
        }

    def send(
        self,
        stream: object,
        msg_or_type: str | dict[str, Any],
        content: dict[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
        ident: bytes | str | Sequence[bytes] | None = None,
        buffers: Sequence[Any] | None = None,
        track: bool = False,  # noqa: ARG002  (jupyter_client's signature)
        header: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send a message on iopub; give it as a dict.

        Without a parent it belongs to the running job.

        Raises:
            RuntimeError: ``stream`` is another channel: replies are the kernel's to send.
        """
        if isinstance(stream, Channel) and stream.name != "iopub":
            raise RuntimeError(f"a message on {stream.name} is the kernel's to send, not a cell's")
        if isinstance(msg_or_type, dict):
            message = msg_or_type
            parent = parent or message.get("parent_header")
        else:
            message = self.msg(msg_or_type, content, parent, header, metadata)
        self._publish(
            message["header"]["msg_type"] if "header" in message else message["msg_type"],
            message["content"],
            metadata=message.get("metadata") or {},
            topic=_topic(ident),
            buffers=buffers or message.get("buffers") or (),
            parent=header_of(parent) or None,
        )
        return message


def header_of(message: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give the header of a message; a bare header is given back."""
    if not message:
        return {}
    return dict(message.get("header") or (message if "msg_id" in message else {}))


def _topic(ident: bytes | str | Sequence[bytes] | None) -> bytes:
    if ident is None:
        return b""
    if isinstance(ident, str):
        return ident.encode()
    return ident if isinstance(ident, bytes) else b"".join(ident[:1])


def _username() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "username"
