"""``unstuck restart``: a new worker in the same kernel; connections, ports and clients stay."""

from __future__ import annotations

import time
from typing import Any

import click

from unstuck.command import examples, say
from unstuck.command.target import (
    ANSWER_S,
    Failed,
    Target,
    deadline_option,
    kernel_argument,
    reached,
)

_LOOK_S = 0.01
_RUNS = frozenset({"ready", "busy", "interrupting"})


@click.command(
    "restart",
    epilog=examples("unstuck restart analysis.ipynb", "unstuck restart 3f1c --deadline 5"),
)
@kernel_argument
@deadline_option(60.0, "until the next worker is ready")
def restart_command(*, name: str, deadline_s: float) -> None:
    """Restart a kernel in place: all variables are lost, every client stays connected.

    KERNEL is a kernel's id or its beginning, a notebook's name or path, or a connection file.
    """
    with reached(name) as target:
        target.require_ours("its server or frontend can restart it")
        before = _state(target)
        start_s = time.monotonic()
        reply = target.control.ask("restart_request", deadline_s=ANSWER_S)
        if reply.get("status") != "ok":
            raise Failed(f"{target.kernel.describe()} refused: {reply.get('evalue', reply)}")
        pid = _await_worker(target, before, start_s + deadline_s)
        if pid is None:
            raise Failed(
                f"{target.kernel.describe()} has no new worker after {deadline_s:g} s; it is still"
                " being started: 'unstuck ps' shows when it is there"
            )
        spent_s = time.monotonic() - start_s
        say([f"Restarted {target.kernel.describe()} in {spent_s:.2f} s: its worker is {pid}."])


def _state(target: Target) -> dict[str, Any]:
    return target.control.ask("state_request", deadline_s=ANSWER_S)


def _await_worker(target: Target, before: dict[str, Any], end_s: float) -> int | None:
    """Wait for a worker that is ready and not the one before; None when there is none in time."""
    while True:
        state = _state(target)
        pid = state.get("worker_pid")
        if state.get("state") in _RUNS and pid not in (None, before.get("worker_pid")):
            return int(pid)
        if time.monotonic() >= end_s:
            return None
        time.sleep(_LOOK_S)
