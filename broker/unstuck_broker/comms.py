"""The broker's own mirror of the open comms, for a comm_info that the worker cannot answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from unstuck.typing import MsgType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unstuck_broker.job import Job


class _CommContent(Struct):
    comm_id: str
    target_name: str = ""


_decoder = msgspec.json.Decoder(_CommContent)


class CommMirror:
    """Which comms are open, by id, with their target names."""

    __slots__ = ("_targets",)

    def __init__(self) -> None:
        """Start with none."""
        self._targets: dict[str, str] = {}

    def watch(self, msg_type: str, content: bytes) -> None:
        """Take note of a comm message that passes in either direction."""
        if msg_type not in ("comm_open", "comm_close"):
            return
        try:
            comm = _decoder.decode(content)
        except msgspec.MsgspecError:
            return  # The worker answers a malformed comm message; there is nothing to mirror.
        if msg_type == "comm_open":
            self._targets[comm.comm_id] = comm.target_name
        else:
            self._targets.pop(comm.comm_id, None)

    def info(self, target_name: str | None) -> dict[str, dict[str, str]]:
        """List the open comms, of one target or of all (messaging specification, comm_info)."""
        return {
            comm_id: {"target_name": target}
            for comm_id, target in self._targets.items()
            if target_name is None or target == target_name
        }

    def opening(self, jobs: Iterable[Job]) -> set[str]:
        """Name the comms that clients have opened by jobs that have not ended."""
        ids: set[str] = set()
        for job in jobs:
            if job.kind is MsgType.comm_open:
                try:
                    ids.add(_decoder.decode(job.request.content_json).comm_id)
                except msgspec.MsgspecError:
                    continue
        return ids

    def close_all(self, keep: frozenset[str] = frozenset()) -> list[str]:
        """Forget all comms but those to ``keep``; give their ids."""
        ids = [comm_id for comm_id in self._targets if comm_id not in keep]
        for comm_id in ids:
            del self._targets[comm_id]
        return ids
