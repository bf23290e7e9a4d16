"""The broker's own mirror of the open comms, for a comm_info that the worker cannot answer."""

from __future__ import annotations

import msgspec
from msgspec import Struct


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

    def close_all(self) -> list[str]:
        """Forget all comms; give their ids."""
        ids = list(self._targets)
        self._targets.clear()
        return ids
