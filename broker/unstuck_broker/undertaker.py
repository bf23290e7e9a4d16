"""A last small process: it gives a worker its grace after the broker's exit, then kills its tree.

Every client waits for the broker's exit, and none for the atexit handlers of a user's cell: so the
broker goes first.
"""

from __future__ import annotations

import os
import select
import time

from unstuck_broker import tree
from unstuck_broker.process import kill_all, watch_fd

_POLL_S = 0.02


def leave_to_undertaker(worker: int, members: set[int], grace_s: float) -> None:
    """Fork a process that ends the worker's tree after at most ``grace_s``.

    Args:
        worker: the worker's pid, also its session.
        members: its tree as it is now; what is orphaned later is found by its session.
        grace_s: seconds for ``finally`` blocks and atexit handlers.
    """
    if os.fork():
        return
    # From here on no code of ours but this runs; whatever happens, this process ends here.
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, 1 << 16)
        _wait(worker, time.monotonic() + grace_s)
        table = tree.process_table()
        live = {entry.pid for entry in table if not entry.zombie}
        session = {entry.pid for entry in table if entry.session == worker}
        kill_all((members & live) | (session & live))
    finally:
        os._exit(0)


def _wait(worker: int, deadline_s: float) -> None:
    """Wait until the worker has ended, or for the deadline."""
    exit_fd = watch_fd(worker)
    if exit_fd is not None:
        select.select([exit_fd], [], [], max(0.0, deadline_s - time.monotonic()))
        return
    while time.monotonic() < deadline_s:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(_POLL_S)
