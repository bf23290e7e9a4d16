"""The newest request on control, for the worker, which never sees those that the broker serves.

It is told right before the next job: requests on control cost a worker that hangs no memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from unstuck.protocol import ControlParent
from unstuck.typing import SocketID

if TYPE_CHECKING:
    from unstuck_broker.wire import Request

CONTENT_BYTES = 1 << 16
"""A larger content stays here: nobody looks up a parent for that."""


class LastControl:
    """What came last on control, and whether the worker knows it."""

    def __init__(self) -> None:
        """Begin before any request."""
        self._request: Request | None = None
        self._is_told = True

    def heard(self, request: Request) -> None:
        """Note a request, of any channel."""
        if request.channel is not SocketID.control:
            return
        # Not all of a large one: the next one may never come.
        if len(request.content_json) > CONTENT_BYTES:
            request = structs.replace(request, content_json=b"{}", buffers=())
        elif request.buffers:
            request = structs.replace(request, buffers=())
        self._request = request
        self._is_told = False

    def forgotten(self) -> None:
        """Tell it anew: another worker comes."""
        self._is_told = False

    def news(self) -> ControlParent | None:
        """Give what the worker has not been told yet; None where it knows everything."""
        request = None if self._is_told else self._request
        self._is_told = True
        if request is None:
            return None
        return ControlParent(
            header=request.header_json,
            parent_header=request.parent_json,
            metadata=request.metadata_json,
            content=request.content_json,
            idents=list(request.idents),
        )
