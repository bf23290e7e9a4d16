"""`%rewind` and `%snapshots`: what the cells ask about their snapshots, and going back to one.

A rewind holds the end of the cell that asked for it: the worker is killed, a copy becomes the
worker, and then the cell gets its reply, below which is said what was undone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.protocol import (
    AskRewind,
    AskSnapshots,
    Finished,
    RewindAnswer,
    SnapshotList,
    SnapshotRow,
)
from unstuck_broker.account import count_effects, name_effects
from unstuck_broker.actions import Lane, SendToWorker
from unstuck_broker.reason import REWIND

if TYPE_CHECKING:
    from unstuck_broker.copies import Copy
    from unstuck_broker.core import Core


class Rewind:
    """Answers about snapshots, and the one rewind that may be under way."""

    def __init__(self, core: Core) -> None:
        """Rewind the worker of ``core``."""
        self._core = core
        self._wish: tuple[int, int] | None = None
        """The job that has asked, and the copy that it wants."""
        self._held: Finished | None = None
        """The end of that job."""

    def asked(self, message: AskSnapshots | AskRewind) -> None:
        """Answer the worker."""
        copies = self._core.revival.copies
        if isinstance(message, AskSnapshots):
            rows = [_row(copy) for copy in copies.ready()]
            self._answer(SnapshotList(message.request, rows, copies.last_skipped))
            return
        chosen = self._choose(message.to)
        if isinstance(chosen, str):
            self._answer(RewindAnswer(message.request, chosen))
            return
        self._answer(RewindAnswer(message.request, "", describe(chosen)))
        self._wish = (message.job, chosen.number)
        if message.job not in self._core.running:
            self._go()

    def holds(self, message: Finished) -> bool:
        """Keep the end of the cell that wants a rewind, and begin it; False for another job."""
        if self._wish is None or self._wish[0] != message.job or not self._core.life.takes_jobs:
            return False
        self._held = message
        self._go()
        return True

    @property
    def held_job(self) -> int | None:
        """Name the job whose end is kept."""
        return None if self._held is None else self._held.job

    def end(self) -> None:
        """Let the cell end that has asked for the rewind, which is done."""
        held, self._held = self._held, None
        if held is not None:
            self._core.finish(held)

    def forget_wish(self) -> None:
        """Forget what a cell wants that has died."""
        self._wish = None

    def forget(self) -> None:
        """Forget the rewind and the cell that has asked for it."""
        self._wish = None
        self._held = None

    def _go(self) -> None:
        wish, self._wish = self._wish, None
        core = self._core
        if wish is not None and core.life.takes_jobs:
            core.revival.target = wish[1]
            core.recovery.kill(REWIND)

    def _choose(self, to: str) -> Copy | str:
        """Find the copy that is meant; or say why there is none."""
        copies = self._core.revival.copies
        if to:
            return copies.named(to) or f"there is no snapshot {to!r}: see %snapshots"
        copy = copies.one_cell_back()
        if copy is None:
            return "there is no snapshot from before the last cell: see %snapshots"
        cells = sum(effect.is_cell for effect in copy.since)
        if cells > 1:
            undone = name_effects(*count_effects(copy.since))
            return (
                f"the newest snapshot from before the last cell would undo {undone}; "
                f"%rewind {copy.number} does that"
            )
        return copy

    def _answer(self, message: SnapshotList | RewindAnswer) -> None:
        self._core.out.order(SendToWorker(Lane.thread, message))


def describe(copy: Copy) -> str:
    """Say where a rewind goes and what it undoes."""
    where = f"to after cell [{copy.cell}]" if copy.cell else "to the start"
    name = f" ({copy.name!r})" if copy.name else ""
    undone = name_effects(*count_effects(copy.since))
    return f"{where}{name}; undone: {undone}" if undone else f"{where}{name}"


def _row(copy: Copy) -> SnapshotRow:
    word = copy.word
    assert word is not None
    return SnapshotRow(
        number=copy.number,
        name=copy.name,
        taken_at=word.taken_at,
        cell=copy.cell,
        kind=word.kind,
        reasons=list(word.reasons),
        memory_bytes=copy.memory_bytes,
        is_current=copy.is_current,
    )
