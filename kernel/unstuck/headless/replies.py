"""The channel of requests and replies, on which no reply is overlooked."""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

from jupyter_client.channels import AsyncZMQSocketChannel
from typing_extensions import override

LOOK_S = 0.05


class ReplyChannel(AsyncZMQSocketChannel):
    """Look for replies again and again.

    jupyter_client sends through a second handle of the socket (``Session.send``), and sending takes
    the notice that a reply is there from whoever waits for it: one long wait may never end.

    Threads: the event loop's.
    """

    @override
    async def get_msg(  # type: ignore[override] # the asynchronous base class differs likewise
        self, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait for the next message, ``timeout`` seconds at most; None waits for ever.

        Raises:
            Empty: none came in time.
        """
        end_s = None if timeout is None else time.monotonic() + timeout
        while True:
            left_s = LOOK_S if end_s is None else max(0.0, end_s - time.monotonic())
            try:
                message: dict[str, Any] = await super().get_msg(min(left_s, LOOK_S))
            except Empty:
                if left_s < LOOK_S:
                    raise
            else:
                return message
