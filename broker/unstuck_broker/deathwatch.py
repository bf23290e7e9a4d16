"""Sees that a worker dies before the system tells its end, which it does when all memory is free.

A worker of 2 GB would keep its copy waiting for 30 to 150 ms: nothing of it runs any more, and its
memory is being given back.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from unstuck.lifeline import Lifeline

_PF_EXITING = 0x4
_STAT_BYTES = 4096
_LOOK_S = 0.01
_LOOKS = 10
# Fields of proc_pid_stat(5), counted behind the name.
_STATE, _FLAGS, _EXIT_CODE = 0, 6, 49
_ENDED = (b"Z", b"X")


class DeathWatch:
    """Waits for the first sign of one worker's death.

    Threads: the broker's loop, and one that waits; it ends with the worker.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sync_fd: int, begun: Callable[[], None]
    ) -> None:
        """Be able to watch.

        Args:
            loop: the broker's.
            sync_fd: the page shared with the worker.
            begun: called in the loop when the worker seems to die.
        """
        self._loop = loop
        self._sync_fd = sync_fd
        self._begun = begun
        self._lifeline: Lifeline | None = None
        self._is_watching = False

    def begin(self, looks: int = _LOOKS) -> None:
        """Watch from the moment on in which the worker holds the word in its page.

        Args:
            looks: how often to look for that; one that never holds it is not watched.
        """
        if self._is_watching:
            return
        if self._lifeline is None:
            from unstuck.lifeline import Lifeline  # noqa: PLC0415 - not at the start

            self._lifeline = Lifeline(self._sync_fd)
        if self._lifeline.is_held():
            self._is_watching = True
            name, lifeline = "unstuck-death-watch", (self._lifeline,)
            threading.Thread(target=self._wait, args=lifeline, name=name, daemon=True).start()
        elif looks > 1:
            # A promoted copy begins to listen after its first snapshot only.
            self._loop.call_later(_LOOK_S, self.begin, looks - 1)

    def _wait(self, lifeline: Lifeline) -> None:
        if lifeline.wait():
            with contextlib.suppress(RuntimeError):  # The loop has ended.
                self._loop.call_soon_threadsafe(self._begun)


def exit_status(pid: int, private: Collection[tuple[int, int]]) -> int | None:
    """Give the wait status of a process that runs no more, though its end cannot be seen yet.

    Args:
        pid: the process.
        private: device and inode of what it may still have open. Anything else may be wanted by
            whoever comes after it: a port, the lock of a file.

    Returns:
        its status; None where it runs, where somebody may wait for what it holds, and for one
        that ends with status 0.
    """
    threads = _threads(pid)
    if not threads or not all(thread.is_exiting for thread in threads.values()):
        return None
    holder = next((tid for tid, thread in threads.items() if not thread.is_ended), None)
    if holder is None or not _holds_only(f"/proc/{pid}/task/{holder}/fd", private):
        return None
    return max(thread.exit_code for thread in threads.values()) or None


class _Thread(NamedTuple):
    """One thread of a process, as the system shows it."""

    is_ended: bool
    is_exiting: bool
    exit_code: int


def _threads(pid: int) -> dict[int, _Thread]:
    found: dict[int, _Thread] = {}
    with contextlib.suppress(OSError, ValueError):
        for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - no paths are needed
            fields = _read(f"/proc/{pid}/task/{name}/stat").rpartition(b")")[2].split()
            found[int(name)] = _Thread(
                fields[_STATE] in _ENDED,
                bool(int(fields[_FLAGS]) & _PF_EXITING),
                int(fields[_EXIT_CODE]),
            )
        return found
    return {}  # One has ended under our eyes: its process's end can be seen in a moment, too.


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _STAT_BYTES)
    finally:
        os.close(fd)


def _holds_only(folder: str, private: Collection[tuple[int, int]]) -> bool:
    """Say whether all open files are among the private ones."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - no paths are needed
        for name in names:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - each microsecond is waited for
            if (status.st_dev, status.st_ino) not in private:
                return False
    except OSError:
        return False
    return bool(names)  # Without any it is closing them at this moment.
