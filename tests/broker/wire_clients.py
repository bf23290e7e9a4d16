"""Both ends of the wire, for tests: our `Wire` and jupyter_client's Session with the same key."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from jupyter_client.session import Session

from unstuck_broker.wire import DELIMITER, Wire

KEY = b"0c7cbbd6-1dbd-4a4b-9d0c-1a2b3c4d5e6f"
SCHEMES = sorted(
    f"hmac-{name}" for name in hashlib.algorithms_guaranteed if not name.startswith("shake")
)


def make_wire(key: bytes = KEY, scheme: str = "hmac-sha256") -> Wire:
    return Wire(key, scheme, session="kernel-session", username="ada", pid=4711)


def make_session(key: bytes = KEY, scheme: str = "hmac-sha256") -> Session:
    return Session(key=key, signature_scheme=scheme)


def client_frames(
    session: Session,
    msg_type: str = "execute_request",
    content: dict[str, Any] | bytes | None = None,
) -> list[bytes]:
    """Give a message as a client sends it, with the identity that zmq puts before it."""
    message = session.msg(msg_type, {})
    message["content"] = {"code": "1"} if content is None else content
    return session.serialize(message, ident=b"client")


def signed(session: Session, *json_frames: bytes) -> list[bytes]:
    """Give a message with these JSON frames, signed as a client would."""
    return [b"client", DELIMITER, session.sign(list(json_frames)), *json_frames]


def with_header(session: Session, /, **fields: object) -> list[bytes]:
    """Give a signed message whose header has exactly these fields."""
    return signed(session, json.dumps(fields).encode(), b"{}", b"{}", b"{}")
