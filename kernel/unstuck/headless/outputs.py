"""Outputs that come after their cell has ended: a thread's, a task's, a subprocess's."""

from __future__ import annotations

import asyncio
import contextlib
from queue import Empty
from typing import TYPE_CHECKING, Any

from jupyter_client.channels import AsyncZMQSocketChannel
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    import zmq.asyncio
    from jupyter_client.session import Session

Message = dict[str, Any]

QUIET_S = 0.15
"""Longer than a kernel keeps text to join it with its neighbours."""
DRAIN_DEADLINE_S = 2.0
"""For a thread that prints without end."""


class OutputChannel(AsyncZMQSocketChannel):
    """Give the running cell's messages to the reader, and those of earlier cells to these cells.

    Threads: the event loop's.
    """

    def __init__(self, socket: zmq.asyncio.Socket, session: Session, loop: object = None) -> None:
        """Read from ``socket``."""
        super().__init__(socket, session, loop)
        self._earlier: dict[str, Callable[[Message], None]] = {}

    def keep(self, request_id: str, deliver: Callable[[Message], None]) -> None:
        """Send what still comes for an ended request to ``deliver``."""
        self._earlier[request_id] = deliver

    @override
    async def get_msg(  # type: ignore[override] # the asynchronous base class differs likewise
        self, timeout: float | None = None
    ) -> Message:
        """Wait for the next message that is not an earlier cell's."""
        while True:
            message: Message = await super().get_msg(timeout)
            deliver = self._earlier.get(message["parent_header"].get("msg_id", ""))
            if deliver is None:
                return message
            if message["msg_type"] not in ("status", "execute_input"):
                deliver(message)

    async def drain(self) -> None:
        """Take what is still on its way, until it is quiet for a moment."""
        with contextlib.suppress(Empty, TimeoutError):
            async with asyncio.timeout(DRAIN_DEADLINE_S):
                while True:
                    await self.get_msg(timeout=QUIET_S)
