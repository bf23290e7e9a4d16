"""Forked copies of a worker (``os.fork``, multiprocessing): no lanes, plain printing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unstuck_worker import signals
from unstuck_worker.snapshots.mark import Mark

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from unstuck_worker.lane import OutputLane
    from unstuck_worker.runner import Runner
    from unstuck_worker.streams import Flood, OutStream


def protect_children(
    lane: OutputLane,
    flood: Flood,
    streams: Iterable[OutStream],
    runner: Runner,
    sockets: Iterable[socket.socket],
) -> Callable[[], None]:
    """See to it that a fork takes place between frames, and that the child never writes one.

    Returns:
        what makes a forked process such a child, for copies that were spared it.
    """

    def enter_child() -> None:
        lane.become_child()
        flood.forget_thread()
        for stream in streams:
            stream.become_child()
        runner.is_child = True
        for sock in sockets:
            sock.close()
        signals.leave()

    def after_in_child() -> None:
        if not Mark.is_snapshot:
            enter_child()

    os.register_at_fork(
        before=lane.hold, after_in_parent=lane.release, after_in_child=after_in_child
    )
    return enter_child
