"""What the kernel tells of itself to a state_request: the worker's state, what runs, what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from unstuck_broker.copies import Copy
    from unstuck_broker.core import Core
    from unstuck_broker.job import Job

_LINE_CHARACTERS = 200


class _Code(Struct):
    code: str = ""


_code = msgspec.json.Decoder(_Code)


def state(core: Core, now: float) -> dict[str, Any]:
    """Build the content of a state_reply (docs/messages.md)."""
    hung_s = core.hangs.seconds(now)
    return {
        "status": "ok",
        "state": core.life.state.value,
        "hung_s": None if hung_s is None else round(hung_s, 3),
        "worker_pid": core.worker_pid,
        "restarts": core.recovery.restarts,
        "relaunches": core.recovery.relaunches,
        "snapshots": [_snapshot(copy) for copy in core.revival.copies.ready()],
        "snapshot_skipped": core.revival.copies.last_skipped,
        "waiting": len(core.backlog) + len(core.gate),
        "running": [
            _request(job, now) for job in sorted(core.running.values(), key=lambda job: job.number)
        ],
    }


def _request(job: Job, now: float) -> dict[str, Any]:
    started_s = now if job.started_s is None else job.started_s
    return {
        "msg_id": job.request.header.msg_id,
        "msg_type": job.request.header.msg_type,
        "run_mode": job.mode.value,
        "subshell_id": job.subshell,
        "execution_count": job.execution_count,
        "seconds": round(now - started_s, 3),
        "code": _first_line(job) if job.is_cell else None,
    }


def _snapshot(copy: Copy) -> dict[str, Any]:
    word = copy.word
    assert word is not None
    return {
        "number": copy.number,
        "name": copy.name,
        "pid": word.pid,
        "spare_pid": None if copy.spare is None else copy.spare.pid,
        "cell": copy.cell,
        "taken_at": word.taken_at,
        "kind": word.kind,
        "is_current": copy.is_current,
        "memory_bytes": copy.memory_bytes,
    }


def _first_line(job: Job) -> str:
    """Give the first line of a cell that says something."""
    code = _code.decode(job.request.content_json).code
    lines = (line.strip() for line in code.splitlines())
    return next((line for line in lines if line), "")[:_LINE_CHARACTERS]
