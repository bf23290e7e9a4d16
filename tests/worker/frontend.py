"""The frontend's side of comms, for tests: what it sends, and comms that hear it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from unstuck_worker import comms

if TYPE_CHECKING:
    from collections.abc import Callable

Wire = dict[str, Any]


def listen(comm_id: str, handler: Callable[[Wire], object]) -> comms.Comm:
    """Open a comm whose messages ``handler`` gets."""
    opened = comms.Comm("t", comm_id=comm_id)
    cast("Any", opened).on_msg(handler)
    return opened


def message(comm_id: str, data: dict[str, Any] | None = None, **content: object) -> Wire:
    """Make a message to a comm."""
    return {
        "header": {"msg_id": "m"},
        "parent_header": {},
        "metadata": {},
        "content": {"comm_id": comm_id, "data": data or {}, **content},
        "buffers": [b"raw"],
    }
