"""What a running kernel says of itself: its state, the cell that runs, what it costs."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unstuck.control import Control, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unstuck.running import RunningKernel

OURS = "unstuck"
DEAD, SILENT, ALIVE, HUNG = "dead", "no answer", "alive", "hung"
_STATES = {
    "starting": "starting",
    "ready": "idle",
    "busy": "busy",
    "killed": "restarting",
    "recovering": "restarting",
    "stopping": "stopping",
    "dead": DEAD,
}
"""A worker's states (docs/lifecycle.md) in the words of a table."""
CPU_SAMPLE_S = 0.1
"""CPU is measured between two questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One request that runs in a kernel."""

    msg_id: str
    msg_type: str
    execution_count: int | None
    seconds: float
    code: str | None
    """The first line of a cell; None for another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """A look at one kernel."""

    state: str
    implementation: str | None = None
    hung_s: float | None = None
    running: list[Running] = field(default_factory=list[Running])
    waiting: int | None = None
    restarts: int | None = None
    worker_pid: int | None = None
    pid: int | None = None
    cpu_percent: float | None = None
    memory_bytes: int | None = None


def implementation_of(control: Control, *, deadline_s: float) -> str:
    """Ask which kernel this is.

    Raises:
        NoAnswer: it says nothing in time.
    """
    info = control.ask("kernel_info_request", deadline_s=deadline_s)
    return str(info.get("implementation", "another kernel"))


def look(kernel: RunningKernel, *, deadline_s: float, sample_s: float = CPU_SAMPLE_S) -> Vitals:
    """Ask a kernel how it is; whatever it does, the answer is there in time."""
    if not kernel.listening:
        return Vitals(state="starting" if kernel.runs else DEAD, pid=kernel.pid)
    end_s = time.monotonic() + deadline_s
    with Control(kernel.connection) as control:
        usage_id = control.send("usage_request")
        try:
            implementation = implementation_of(control, deadline_s=deadline_s)
        except NoAnswer:
            return Vitals(state=SILENT, pid=kernel.pid)
        state: Mapping[str, Any] = {}
        usage: Mapping[str, Any] = {}
        with suppress(NoAnswer):
            if implementation == OURS:
                state = control.ask("state_request", deadline_s=_left_s(end_s))
            usage = control.answer(usage_id, "usage_request", deadline_s=_left_s(end_s))
            if sample_s and usage.get("kernel_cpu") is not None:
                time.sleep(min(sample_s, _left_s(end_s)))
                usage = control.ask("usage_request", deadline_s=_left_s(end_s))
    said = kernel.session.state if kernel.session else ALIVE
    return _read(implementation, state, usage, kernel.pid, said)


def _left_s(end_s: float) -> float:
    return max(0.0, end_s - time.monotonic())


def _read(
    implementation: str,
    state: Mapping[str, Any],
    usage: Mapping[str, Any],
    pid: int | None,
    said: str,
) -> Vitals:
    hung_s = state.get("hung_s")
    told = str(state.get("state", ""))
    return Vitals(
        state=HUNG if hung_s is not None else _STATES.get(told, told or said),
        implementation=implementation,
        hung_s=hung_s,
        running=read_running(state),
        waiting=state.get("waiting"),
        restarts=state.get("restarts"),
        worker_pid=state.get("worker_pid"),
        pid=usage.get("pid", pid),
        cpu_percent=usage.get("kernel_cpu"),
        memory_bytes=usage.get("kernel_memory"),
    )


def read_running(state: Mapping[str, Any]) -> list[Running]:
    """Read the requests that run out of a state_reply."""
    return [
        Running(
            msg_id=str(one["msg_id"]),
            msg_type=str(one["msg_type"]),
            execution_count=one["execution_count"],
            seconds=float(one["seconds"]),
            code=one["code"],
        )
        for one in state.get("running", [])
    ]
