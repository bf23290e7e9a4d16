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
    files: dict[tuple[int, int], str] = {}
    sockets: list[int] = []
    has_cuda = False
    for descriptor, target in descriptors():
        if target.startswith("socket:"):
            sockets.append(descriptor)
        elif target.startswith("/"):
            has_cuda = has_cuda or _CUDA.match(target) is not None
            files.update(_regular(descriptor, target))
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


def _regular(descriptor: int, path: str) -> dict[tuple[int, int], str]:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return {}
    return {(status.st_dev, status.st_ino): path} if stat.S_ISREG(status.st_mode) else {}


def _locks(files: dict[tuple[int, int], str]) -> tuple[str, list[str]]:
    """Give the database of an open transaction, and the files that are locked otherwise."""
    if not files:
        return "", []
    try:
        with open("/proc/locks", "rb", 0) as file:  # noqa: PTH123
            lines = file.readall().decode().splitlines()
    except OSError:
        return "", []
    locked: list[str] = []
    for line in lines:
        # 1: POSIX  ADVISORY  WRITE 1234 08:01:131 1073741825 1073741825
        words = line.split()
        if len(words) < 8 or words[1] != "POSIX" or words[3] != "WRITE":
            continue
        if int(words[4]) != os.getpid():
            continue
        major, minor, inode = words[5].split(":")
        path = files.get((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
        if path is None:
            continue
        if path.endswith("-shm") or int(words[6]) >= _SQLITE_LOCKS:
            return path.removesuffix("-shm"), []
        locked.append(path)
    return "", locked


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
