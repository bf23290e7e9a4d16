"""What this process holds of the outside world, and which of it a copy would not have.

Threads: the main thread's.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple

from unstuck_worker.snapshots import children, executors

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

OURS = re.compile(
    r"unstuck-.*|IPythonHistorySavingThread|tqdm_monitor|pydevd\..*|ExecutorManagerThread"
)
"""Threads that a promoted copy starts again, or does not miss."""
_LOKY = "joblib.externals.loky"
_SQLITE_LOCKS = 0x40000000
"""From this offset on SQLite locks its files."""
_CUDA = re.compile(r"/dev/nvidia(\d|-uvm)")


class Held(NamedTuple):
    """What descriptors and locks say."""

    has_cuda: bool
    transaction: str
    """The file of an SQLite database that is being written."""
    lost: list[str]


def find() -> Held:
    """Look through descriptors, file locks and child processes."""
    files: dict[int, str] = {}
    sockets: list[int] = []
    has_cuda = False
    for descriptor, target in descriptors():
        if target.startswith("socket:"):
            sockets.append(descriptor)
        elif target.startswith("/"):
            has_cuda = has_cuda or _CUDA.match(target) is not None
            if _is_regular(descriptor):
                files[descriptor] = target
    transaction, locked = _locks(files)
    lost = [f"the lock on {path}" for path in locked]
    lost += filter(None, map(_connection, sockets))
    lost += (f"the process {child.name}" for child in children.living() if not child.is_revived)
    return Held(has_cuda, transaction, lost)


def descriptors() -> Iterable[tuple[int, str]]:
    """List the open descriptors and what is behind them."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208  (measured: 10 times as fast)
        try:
            yield int(entry), os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115
        except OSError:
            continue


def _is_regular(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _locks(files: dict[int, str]) -> tuple[str, list[str]]:
    """Give the database of an open transaction, and the files that are locked otherwise."""
    locked: dict[str, None] = {}
    for descriptor, path in files.items():
        for start in _write_locks(descriptor):
            if path.endswith("-shm") or start >= _SQLITE_LOCKS:
                return path.removesuffix("-shm"), []
            locked[path] = None
    return "", list(locked)


def _write_locks(descriptor: int) -> Iterable[int]:
    """Give where the POSIX write locks of this process begin in a file (proc_pid_fdinfo(5)).

    Not by ``/proc/locks``: to write that table the system waits 5 to 15 ms for all processors.
    """
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb", 0) as file:  # noqa: PTH123
            lines = file.readall().splitlines()
    except OSError:
        return
    for line in lines:
        # lock:  1: POSIX  ADVISORY  WRITE 1234 08:01:131 1073741825 1073741825
        words = line.split()
        if words[:1] == [b"lock:"] and words[2] == b"POSIX" and words[4] == b"WRITE":
            yield int(words[7])


def _connection(descriptor: int) -> str:
    """Name a connection; empty for a socket without a peer, which can be made again."""
    try:
        sock = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return ""
    with sock:
        try:
            if sock.family not in (socket.AF_INET, socket.AF_INET6):
                return ""
            host, port, *_ = sock.getpeername()
        except OSError:
            return ""
    return f"the connection to {host}:{port}"


def lost_threads(threads: Iterable[threading.Thread]) -> list[str]:
    """Name the Python threads of the user, but for those that nobody misses."""
    idle = executors.idle_threads()
    found: dict[str, None] = {}
    for thread in threads:
        if thread in idle or OURS.fullmatch(thread.name):
            continue
        found[_thread_name(thread)] = None
    return list(filter(None, found))


def _thread_name(thread: threading.Thread) -> str:
    """Say what a thread is; empty for one that is made anew where it is needed."""
    target = getattr(thread, "_target", None)
    module = str(getattr(target, "__module__", "") or "")
    kind = type(thread).__module__
    if module.startswith(_LOKY) or kind.startswith(_LOKY):
        return ""
    if module == "multiprocessing.pool" or kind == "multiprocessing.pool":
        return "a multiprocessing.Pool"
    if kind == "concurrent.futures.process":
        return "a ProcessPoolExecutor"
    if module == "multiprocessing.queues":
        return ""
    return f"the thread {thread.name!r}"
