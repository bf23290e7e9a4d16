"""What the dormant copies cost in memory: looked at now and then, in a thread.

Pages that the worker and a copy share cost nothing; what one of them has written is there twice.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from unstuck_broker.events import CopiesMeasured, Event

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Mapping

    from unstuck.config import Config
    from unstuck_broker.dormant import Dormant
    from unstuck_broker.supervisor import Supervisor

_LOOK_S = 1.0
_REST = 30.0
"""A look rests for so many times what it took: reading the tables of gigabytes takes a while."""
_SPARE_SHARE = 0.05
"""Copies are dropped when the machine has less memory left than this."""
_DEFAULT_SHARE = 0.25


class Memory(NamedTuple):
    """What a process uses, in bytes."""

    shared_bytes: int
    """Proportional: each page divided by the number of its users (PSS)."""
    private_bytes: int
    """What would be free if it ended now."""
    resident_bytes: int


class CopyWatch:
    """Measures while there are copies.

    Threads: the broker's loop; /proc is read in a thread for each look, which an exit leaves alone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dormant: Dormant,
        supervisor: Supervisor,
        emit: Callable[[Event], None],
    ) -> None:
        """Measure ``dormant`` beside the worker of ``supervisor``; ``emit`` gets what is seen."""
        self._loop = loop
        self._dormant = dormant
        self._supervisor = supervisor
        self._emit = emit
        self._timer: asyncio.TimerHandle | None = None
        self._config: Config | None = None

    def follow(self, config: Config) -> None:
        """Begin to look when there are copies."""
        self._config = config
        if self._timer is None and self._dormant.pids():
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        pids = self._dormant.processes()
        if not pids or self._config is None:
            self._timer = None
            return
        order = pids, self._supervisor.pid, self._config.snapshot_memory_bytes
        threading.Thread(target=self._measure, args=order, daemon=True).start()

    def _measure(self, pids: dict[int, list[int]], worker: int | None, allowed_bytes: int) -> None:
        """Measure, in a thread of its own."""
        began_s = time.monotonic()
        measured = measure(pids, worker, allowed_bytes)
        with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
            took_s = time.monotonic() - began_s
            self._loop.call_soon_threadsafe(self._looked, measured, took_s)

    def _looked(self, measured: CopiesMeasured | None, took_s: float) -> None:
        self._timer = self._loop.call_later(max(_LOOK_S, _REST * took_s), self._look)
        if measured is not None:
            self._emit(measured)


def measure(
    pids: Mapping[int, Collection[int]], worker: int | None, allowed_bytes: int
) -> CopiesMeasured | None:
    """Measure copies beside their worker; None where a process has ended meanwhile.

    Args:
        pids: of the copies, by number; two for one with a spare.
        worker: its pid, if there is one.
        allowed_bytes: what the copies may cost; 0: a share of the machine's memory.
    """
    found = {number: list(filter(None, map(read_memory, few))) for number, few in pids.items()}
    copies = {number: memories for number, memories in found.items() if memories}
    original = None if worker is None else read_memory(worker)
    if not copies or original is None:
        return None
    each = [memory for memories in copies.values() for memory in memories]
    all_bytes = sum(memory.shared_bytes for memory in each) + original.shared_bytes
    private_bytes = sum(memory.private_bytes for memory in each)
    total_bytes = max(private_bytes, all_bytes - original.resident_bytes)
    machine_bytes, free_bytes = read_machine()
    budget_bytes = allowed_bytes or int(machine_bytes * _DEFAULT_SHARE)
    missing_bytes = int(machine_bytes * _SPARE_SHARE) - free_bytes
    if missing_bytes > 0:
        budget_bytes = min(budget_bytes, max(0, total_bytes - missing_bytes))
    by_number = {n: sum(one.private_bytes for one in few) for n, few in copies.items()}
    # What is in no worker and in no copy alone is what copies share with their spares.
    doubled = [number for number, memories in copies.items() if len(memories) > 1]
    for number in doubled:
        by_number[number] += (total_bytes - private_bytes) // len(doubled)
    return CopiesMeasured(by_number, total_bytes, budget_bytes)


def read_memory(pid: int) -> Memory | None:
    """Read ``/proc/PID/smaps_rollup``; None where there is no such process."""
    fields: dict[bytes, int] = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123 - pathlib is slow
            for line in file:
                name, _, rest = line.partition(b":")
                if rest.endswith(b" kB\n"):
                    fields[name] = int(rest[:-4]) * 1024
    except OSError:
        return None
    private = fields.get(b"Private_Clean", 0) + fields.get(b"Private_Dirty", 0)
    return Memory(fields.get(b"Pss", 0), private, fields.get(b"Rss", 0))


def read_machine() -> tuple[int, int]:
    """Give the machine's memory, and what of it is available."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    total_bytes = os.sysconf("SC_PHYS_PAGES") * page_bytes
    try:
        with open("/proc/meminfo", "rb") as file:  # noqa: PTH123 - as above
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return total_bytes, int(line.split()[1]) * 1024
    except OSError:
        pass
    return total_bytes, os.sysconf("SC_AVPHYS_PAGES") * page_bytes
