"""Forked copies of a worker (``os.fork``, multiprocessing): no lanes, plain printing."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from unstuck_worker.lane import OutputLane
    from unstuck_worker.runner import Runner
    from unstuck_worker.streams import Flood, OutStream


def protect_children(
    lane: OutputLane,
    flood: Flood,
    streams: Iterable[OutStream],
    runner: Runner,
    sockets: Iterable[socket.socket],
) -> None:
    """See to it that a fork takes place between frames, and that the child never writes one."""

    def enter_child() -> None:
        lane.become_child()
        flood.forget_thread()
        for stream in streams:
            stream.become_child()
        runner.is_child = True
        for sock in sockets:
            sock.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    os.register_at_fork(before=lane.hold, after_in_parent=lane.release, after_in_child=enter_child)
