"""Which processes belong to a worker: descendants, its session, the orphans that we inherit."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

_STAT_BYTES = 4096
_HAS_PROC = os.path.exists("/proc/self/stat")  # noqa: PTH110 - pathlib is slow


class Entry(NamedTuple):
    """One process in the table of the operating system."""

    pid: int
    parent: int
    session: int
    zombie: bool


def process_table() -> list[Entry]:
    """Read the table of all processes."""
    if _HAS_PROC:
        names = os.listdir("/proc")  # noqa: PTH208 - no paths are needed
        return [entry for name in names if (entry := _read_stat(name))]
    import psutil  # noqa: PLC0415 - only where there is no /proc

    table: list[Entry] = []
    for process in psutil.process_iter(["pid", "ppid", "status"]):
        try:
            session = os.getsid(process.pid)
        except OSError:
            continue
        zombie = process.info["status"] == psutil.STATUS_ZOMBIE
        table.append(Entry(process.pid, process.info["ppid"], session, zombie))
    return table


def reap_orphans(broker: int, spared: frozenset[int]) -> None:
    """Collect what has ended of our adopted children, lest they stay as zombies.

    Args:
        broker: our pid.
        spared: the children whose exit status somebody else waits for.
    """
    for entry in process_table():
        if entry.parent == broker and entry.zombie and entry.pid not in spared:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(entry.pid, os.WNOHANG)


def _read_stat(name: str) -> Entry | None:
    """Read ``/proc/PID/stat`` (proc_pid_stat(5)); the name may hold spaces and parentheses."""
    if not name.isdigit():
        return None
    try:
        # What ``open`` does beside costs as much again, for each process of the machine.
        fd = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.read(fd, _STAT_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Entry(int(name), int(fields[1]), int(fields[3]), fields[0] in (b"Z", b"X"))


def members(table: list[Entry], worker: int, broker: int, spared: frozenset[int]) -> set[int]:
    """Find all live processes of a worker's tree, itself included.

    Args:
        table: all processes.
        worker: the worker's pid; also its session.
        broker: our pid: a child of ours that is not spared is an orphan of that tree.
        spared: our children that are none of the worker's: a template, a next worker.
    """
    children: dict[int, list[int]] = {}
    for entry in table:
        children.setdefault(entry.parent, []).append(entry.pid)
    found = {entry.pid for entry in table if entry.session == worker}
    found |= {worker, *(pid for pid in children.get(broker, ()) if pid not in spared)}
    waiting = list(found)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found and pid not in spared:
                found.add(pid)
                waiting.append(pid)
    live = {entry.pid for entry in table if not entry.zombie}
    return found & live
