"""``%snapshot``, ``%snapshots`` and ``%rewind``: the copies of this session, and going back."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from unstuck.jobcontext import get_context
from unstuck.protocol import AskRewind, AskSnapshots, RewindAnswer, SnapshotList, SnapshotRow
from unstuck_worker.snapshotname import NO_SNAPSHOTS, as_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.protocol import ToBroker
    from unstuck_worker.asking import Answer
    from unstuck_worker.kernel import UnstuckKernel

HEADINGS = ("", "name", "when", "after", "comes back by", "memory")


@magics_class
class SnapshotMagics(Magics):
    """What a cell asks about the copies of its session."""

    @property
    def _kernel(self) -> UnstuckKernel:
        kernel: UnstuckKernel = self.shell.kernel  # type: ignore[union-attr]
        return kernel

    def _ask(self, make: Callable[[int], ToBroker]) -> Answer:
        if self._kernel.snapshots is None:
            raise UsageError(f"{NO_SNAPSHOTS[0].upper()}{NO_SNAPSHOTS[1:]}.")
        return self._kernel.asking.ask(make)

    @line_magic
    def snapshot(self, line: str) -> None:
        """Keep the variables as they are after this cell: ``%snapshot [NAME]``."""
        name = as_name(line)
        self._kernel.take_snapshot(name)
        called = f" {name!r}" if name else ""
        sys.stdout.write(f"A snapshot{called} is taken after this cell.\n")

    @line_magic
    def snapshots(self, line: str) -> None:
        """List the snapshots of this session."""
        del line
        answer = self._ask(AskSnapshots)
        if isinstance(answer, SnapshotList):
            sys.stdout.write(table(answer))

    @line_magic
    def rewind(self, line: str) -> None:
        """Undo the last cell, or go back to a snapshot: ``%rewind [NAME or NUMBER]``."""
        context = get_context()
        job = context.job if context else 0
        to = as_name(line)
        answer = self._ask(lambda number: AskRewind(number, job, to))
        if isinstance(answer, RewindAnswer):
            if answer.refused:
                raise UsageError(answer.refused)
            sys.stdout.write(f"Going back {answer.to}.\n")


def status(kernel: UnstuckKernel) -> str:
    """Say for `%unstuck` whether there are snapshots, and why the last one was not taken."""
    if kernel.snapshots is None:
        return ""
    if kernel.settings.get("snapshots") == "off":
        return "\nSnapshots are off.\n"
    answer = kernel.asking.ask(AskSnapshots)
    assert isinstance(answer, SnapshotList)
    newest = max(answer.rows, key=lambda row: row.number, default=None)
    if newest is None:
        text = "There is no snapshot now."
    else:
        when = datetime.fromtimestamp(newest.taken_at, UTC).astimezone()
        after = f"cell [{newest.cell}]" if newest.cell else "the start"
        text = f"The newest snapshot is of {when:%H:%M:%S}, after {after}."
    if answer.last_skipped:
        text += f" The last one that was due was not taken: {answer.last_skipped}."
    return f"\n{text}\n"


def table(answer: SnapshotList) -> str:
    """Lay out the snapshots, oldest first."""
    lines: list[str] = []
    if answer.rows:
        rows = [HEADINGS, *map(_cells, answer.rows)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
        for row in rows:
            padded = (f"{text:<{width}}" for text, width in zip(row, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
    else:
        lines.append("There is no snapshot.")
    if answer.last_skipped:
        lines.append(f"The last one that was due was not taken: {answer.last_skipped}.")
    return "\n".join(lines) + "\n"


def _cells(row: SnapshotRow) -> tuple[str, ...]:
    when = datetime.fromtimestamp(row.taken_at, UTC).astimezone()
    way = "promotion" if row.kind == "promotable" else "transplant"
    if row.reasons:
        way += f" ({', '.join(row.reasons)})"
    memory = "" if row.memory_bytes < 0 else f"{row.memory_bytes / 1e6:,.1f} MB"
    after = f"[{row.cell}]" if row.cell else "start"
    is_current = " (now)" if row.is_current else ""
    return str(row.number), row.name, f"{when:%H:%M:%S}", after + is_current, way, memory
