"""Payloads: what a cell's reply asks of the frontend, a pager or the next input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.payload import PayloadManager
from typing_extensions import override

if TYPE_CHECKING:
    from unstuck_worker.shell import UnstuckShell


class CellPayloads(PayloadManager):
    """Payloads by cell, so that a cell's reply carries its own."""

    shell: UnstuckShell

    @override
    def write_payload(self, data: dict[str, Any], single: bool = True) -> None:
        """Add a payload to the running cell's; of one source only the last counts if ``single``."""
        if not isinstance(data, dict):
            raise TypeError(f"Each payload write must be a dict, got: {data!r}")
        payloads = self.read_payload()
        if single:
            payloads[:] = [one for one in payloads if one.get("source") != data.get("source")]
        payloads.append(data)

    @override
    def read_payload(self) -> list[dict[str, Any]]:
        """Give the running cell's payloads."""
        cell = self.shell.cell
        return cell.payloads if cell else []

    @override
    def clear_payload(self) -> None:
        """Forget the running cell's payloads."""
        self.read_payload().clear()
