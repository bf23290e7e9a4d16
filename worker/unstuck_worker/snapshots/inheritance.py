"""Take over the variables of a donor, in a fresh worker, before it says that it is ready."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from unstuck.protocol import Receive, Received, TransplantProgress

if TYPE_CHECKING:
    from unstuck_worker.lane import OutputLane

CONNECT_AGAIN_S = 0.005


def take_over(order: Receive, shell: Any, lane: OutputLane) -> None:  # noqa: ANN401
    """Take what the donor gives, and tell the broker what came."""
    began_s = time.monotonic()
    try:
        connection = _connect(order.address, began_s + order.deadline_s)
    except OSError as error:
        reason = f"the snapshot did not answer: {error}"
        lane.send(Received(0, [("all variables", reason)], 0, time.monotonic() - began_s))
        return
    from unstuck_worker.transplant.receiver import receive  # noqa: PLC0415  (rarely needed)

    def tell(done: int, total: int, name: str) -> None:
        lane.send(TransplantProgress(done, total, name))

    with connection:
        outcome = receive(connection, shell, progress=tell, deadline_s=order.deadline_s)
    lane.send(Received(outcome.came, outcome.failed, outcome.size_bytes, outcome.seconds))


def _connect(address: str, end_s: float) -> socket.socket:
    """Connect to the donor, which has to wake first.

    Raises:
        OSError: it does not listen by the deadline.
    """
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(f"\0{address}")
        except OSError:
            connection.close()
            if time.monotonic() > end_s:
                raise
            time.sleep(CONNECT_AGAIN_S)
        else:
            return connection
