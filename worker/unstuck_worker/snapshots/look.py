"""The look before a fork: what would make it hang, and what would not live in the copy.

Threads: the main thread, which holds the GIL throughout: `states` gives it up at no moment, so that
no other Python thread can enter C code between its look and the fork.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from unstuck_worker.snapshots import holdings
from unstuck_worker.snapshots.libraries import Loaded, donor_reasons
from unstuck_worker.snapshots.openmp import OpenMP

if TYPE_CHECKING:
    from collections.abc import Collection

_STAT_BYTES = 512
_BUSY = b"RD"
_PLAIN = {"unstuck-lane", "unstuck-streams"}
"""Threads of ours that only read and write: no library has a lock of theirs."""
_SAVER = "IPythonHistorySavingThread"
"""Named only where no other thread is busy."""
ENDING_LOOKS = 4
ENDING_S = 0.001
SHORT_SHARE = 0.05
"""Of the machine's memory: with less left no snapshot is taken."""

# PyDLL keeps the GIL.
_libc = ctypes.PyDLL(None, use_errno=True)
_buffer = ctypes.create_string_buffer(_STAT_BYTES)


class Sight(NamedTuple):
    """What was seen."""

    hindrance: str = ""
    """Why no fork is possible now; the rest is not known then."""
    reasons: tuple[str, ...] = ()
    """Why the copy would be a donor only."""
    lost: tuple[str, ...] = ()
    """What lives here and would not live in the copy."""
    passes: bool = False
    """The hindrance may be gone in a moment."""


class Look:
    """What is asked before each fork."""

    def __init__(self) -> None:
        """Look at this process."""
        self._loaded = Loaded()
        self._openmp = OpenMP()
        self._strangers: set[int] = set()
        """Threads that run no Python, and have done so for a while."""

    def pause_pools(self) -> None:
        """End the OpenMP pools of this thread, right before the fork."""
        self._openmp.pause()

    def look(self, busy_jobs: Collection[str] = ()) -> Sight:
        """Look at everything; the last look is at the threads.

        Args:
            busy_jobs: what runs beside the queue, in words; it is lost in a copy.
        """
        self._let_threads_end()
        held = holdings.find()
        if held.has_cuda:
            return Sight("a CUDA context is open")
        if held.transaction:
            return Sight(f"a transaction is open on {held.transaction}", passes=True)
        threads = [t for t in threading.enumerate() if t is not threading.main_thread()]
        native = _native_threads()
        known = {thread.native_id for thread in threads}
        comms = [comm for tid, comm in native if tid not in known and tid != os.getpid()]
        libraries = self._loaded.libraries()
        reasons = donor_reasons(comms, _own_comms(threads, native), libraries)
        self._openmp.find(libraries)
        lost = [*busy_jobs, *holdings.lost_threads(threads), *held.lost]
        busy = busy_reason()
        if busy:
            return Sight(busy, passes=True)
        return Sight("", tuple(reasons), tuple(lost))

    def _let_threads_end(self) -> None:
        """Wait a moment where a thread is new that Python does not know.

        It may be a Python thread at its end: the system knows it for a moment longer, which on a
        busy machine is milliseconds. One that stays belongs to a library.
        """
        strangers: set[int] = set()
        for _ in range(ENDING_LOOKS):
            known = {os.getpid(), *(thread.native_id for thread in threading.enumerate())}
            strangers = set(map(int, os.listdir("/proc/self/task"))) - known  # noqa: PTH208
            new = strangers - self._strangers
            self._strangers &= strangers
            if not new:
                return
            time.sleep(ENDING_S)
        self._strangers |= strangers


def busy_reason() -> str:
    """Say which thread makes a fork dangerous at this moment; empty for none."""
    main = threading.main_thread()
    busy = busy_thread([thread for thread in threading.enumerate() if thread is not main])
    return "" if busy is None else f"the thread {busy.name!r} runs C code"


def busy_thread(threads: Collection[threading.Thread]) -> threading.Thread | None:
    """Give a Python thread that runs without the GIL; the GIL is held throughout.

    A thread in a matrix product keeps ``fork`` from ever coming back (OpenBLAS joins its threads
    before it).
    """
    found: threading.Thread | None = None
    for thread in threads:
        if thread.name in _PLAIN or thread.native_id is None:
            continue
        if _state(thread.native_id) in _BUSY and (found is None or found.name == _SAVER):
            found = thread
    return found


def _state(tid: int) -> bytes:
    """Read a thread's state from the system without giving up the GIL."""
    descriptor = _libc.open(f"/proc/self/task/{tid}/stat".encode(), os.O_RDONLY | os.O_CLOEXEC)
    if descriptor < 0:
        return b"-"
    size = _libc.read(descriptor, _buffer, _STAT_BYTES)
    _libc.close(descriptor)
    _, _, rest = _buffer.raw[: max(size, 0)].rpartition(b") ")
    return rest[:1] or b"-"


def _native_threads() -> list[tuple[int, str]]:
    """List the threads that the system knows, by id and name."""
    found: list[tuple[int, str]] = []
    for entry in os.listdir("/proc/self/task"):  # noqa: PTH208  (100 times as fast)
        try:
            with open(f"/proc/self/task/{entry}/comm", "rb", 0) as file:  # noqa: PTH123
                found.append((int(entry), file.read(64).rstrip().decode(errors="replace")))
        except OSError:
            continue
    return found


def _own_comms(threads: list[threading.Thread], native: list[tuple[int, str]]) -> set[str]:
    """Give the names that native threads inherit: those of the threads that can start them."""
    known = {thread.native_id for thread in threads} | {os.getpid()}
    return {comm for tid, comm in native if tid in known}


def is_memory_short() -> bool:
    """Say whether the machine has little memory left for the pages that two processes change."""
    try:
        with open("/proc/meminfo", "rb", 0) as file:  # noqa: PTH123
            lines = dict(line.split(b":", 1) for line in file.read(512).splitlines()[:3])
    except (OSError, ValueError):
        return False
    total, available = (int(lines[name].split()[0]) for name in (b"MemTotal", b"MemAvailable"))
    return available < total * SHORT_SHARE


def is_linux() -> bool:
    """Say whether there is all that a snapshot needs."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")
