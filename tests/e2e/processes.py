"""The processes of a kernel, as the operating system shows them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psutil

from e2e.kernel_client import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from e2e.kernel_client import Kernel

GIL_HELD = "import itertools\nprint('begun')\nmax(itertools.repeat(1))"
"""A cell that no signal ends."""


def is_live(process: psutil.Process) -> bool:
    """Tell whether a process runs: neither gone nor a zombie that nobody has waited for."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def live(kernel: Kernel) -> list[psutil.Process]:
    """List the kernel's live processes."""
    return [one for one in kernel.tree if is_live(one)]


def awake(kernel: Kernel) -> list[psutil.Process]:
    """List the kernel's live processes but for its snapshots."""
    asleep = copies(kernel)
    return [one for one in live(kernel) if one.pid not in asleep]


def worker(kernel: Kernel) -> psutil.Process:
    """Give the process that runs cells, by a cell."""
    return psutil.Process(int(kernel.evaluate("__import__('os').getpid()")))


def ready_worker(kernel: Kernel) -> psutil.Process:
    """Give the process whose shell is there, as the broker names it: no cell runs for this."""
    pids: list[int | None] = [None]

    def is_named() -> bool:
        pids[:] = [kernel.request("state_request", channel="control").content["worker_pid"]]
        return pids[0] is not None

    kernel.wait(is_named, "worker")
    return psutil.Process(pids[0])


def copies(kernel: Kernel) -> list[int]:
    """List the process ids of the snapshots, and of their spares."""
    snapshots = kernel.request("state_request", channel="control").content["snapshots"]
    return [snapshot["pid"] for snapshot in snapshots] + spares(kernel)


def spares(kernel: Kernel) -> list[int]:
    """List the process ids of the second processes of snapshots."""
    snapshots = kernel.request("state_request", channel="control").content["snapshots"]
    return [pid for snapshot in snapshots if (pid := snapshot["spare_pid"]) is not None]


def template(kernel: Kernel) -> psutil.Process:
    """Give the process that workers are forked from; a restart in place brings it up."""
    return forks(kernel)[0]


def forks(kernel: Kernel) -> tuple[psutil.Process, psutil.Process]:
    """Give the template and its spare, the next worker; a restart in place brings them up."""
    kernel.request("restart_request", channel="control")
    template, spare = beside(kernel, worker(kernel), 2)
    return template, spare


def forks_at_rest(kernel: Kernel) -> tuple[psutil.Process, psutil.Process]:
    """Give the template of the first worker and its spare; for a kernel that has run no cell."""
    template, spare = beside(kernel, ready_worker(kernel), 2)
    return template, spare


def beside(kernel: Kernel, worker: psutil.Process, count: int) -> list[psutil.Process]:
    """Wait until the broker has so many children that are no worker and no snapshot; give them."""
    found: list[psutil.Process] = []

    def are_there() -> bool:
        children = psutil.Process(kernel.pid).children()
        others = {worker.pid, *copies(kernel)}
        found[:] = [one for one in children if one.pid not in others and is_live(one)]
        found.sort(key=lambda one: os.getsid(one.pid) != one.pid)  # The template leads a session.
        return len(found) == count

    kernel.wait(are_there, "template and spare")
    return found


def wait_until_gone(processes: Iterable[psutil.Process], *, deadline_s: float = WAIT_S) -> None:
    """Wait until no process of these runs."""
    end = time.monotonic() + deadline_s
    while left := [one for one in processes if is_live(one)]:
        assert time.monotonic() < end, f"still there: {left}"
        psutil.wait_procs(left, timeout=0.05)
