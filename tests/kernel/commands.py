"""Run the command line against kernels that tests have started."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from unstuck.command import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.kernel_client import Kernel

WAIT_S = 20.0
HANG = (
    "import ctypes; m = ctypes.create_string_buffer(64); c = ctypes.PyDLL(None)"
    "; c.pthread_mutex_lock(m); c.pthread_mutex_lock(m)"
)
"""C code that holds the GIL, until its process is killed."""
REFUSED, FAILED = 2, 1


def unstuck(*arguments: str | Path) -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def file_of(kernel: Kernel) -> str:
    """Name a kernel by its connection file."""
    return str(kernel.manager.connection_file)


def record_of(kernel: Kernel, *options: str) -> dict[str, Any]:
    """Give what ``unstuck ps --json`` tells of one kernel."""
    result = unstuck("ps", "--json", file_of(kernel), *(options or ("--deadline", "10")))
    assert result.exit_code == 0, result.output
    [record] = json.loads(result.output)
    return dict(record)


def worker_of(kernel: Kernel) -> int:
    """Give the process id of a kernel's worker once its shell is there."""
    wait_for(lambda: record_of(kernel)["worker_pid"] is not None, "worker")
    return int(record_of(kernel)["worker_pid"])


def wait_for(fact: Callable[[], bool], what: str, *, deadline_s: float = WAIT_S) -> None:
    """Look again and again until ``fact`` holds."""
    end_s = time.monotonic() + deadline_s
    while not fact():
        assert time.monotonic() < end_s, f"no {what} within {deadline_s:g} s"
        time.sleep(0.02)


def one_line(result: Result, code: int) -> str:
    """Give the one line of a command that did not do it."""
    assert result.exit_code == code, result.output
    [line] = result.output.splitlines()
    assert line.startswith("unstuck: ")
    return line
