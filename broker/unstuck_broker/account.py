"""The account of a recovery: what was lost, what came back, from when, by which way, how long."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from unstuck_broker import replies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unstuck_broker.copies import Copy, Effect

MIME_TYPE = "application/vnd.unstuck.recovery+json"
Way = Literal["promotion", "transplant", "none"]


class Account(Struct, frozen=True):
    """What is told of one recovery, in words and as data for frontends."""

    cause: str
    """How the worker ended."""
    way: Way
    """``promotion``: a copy has become the worker; ``transplant``: a new worker has taken over."""
    snapshot: int
    name: str
    cell: int
    """The last cell whose effects the snapshot has."""
    taken_at: float
    """Unix seconds."""
    seconds: float
    """From the worker's end to the next one's first word."""
    missing_cells: list[int]
    """Execution counts of the cells that ran after the snapshot and are not being undone."""
    missing_others: int
    """Other jobs that ran after it: cells without a count, widget messages."""
    lost: list[str]
    """What does not live in a copy: threads, connections, child processes."""
    failed: list[tuple[str, str]]
    """Variables that could not be taken over, with the reason."""
    came: int | None = None
    """How many variables came by a transplant."""
    is_rewind: bool = False
    is_idle: bool = False
    """No cell ran when the worker ended, so none is undone."""

    def state(self) -> str:
        """Say in a clause which state the variables are in."""
        names = ", ".join(name for name, _ in self.failed)
        return f"{self._moment()}, but for {names}" if names else self._moment()

    def _moment(self) -> str:
        if self.is_rewind or self.is_idle or self.missing_cells or self.missing_others:
            after = f"after cell [{self.cell}]" if self.cell else "at the start"
            state = f"the variables are as they were {after}"
            missing = name_effects(self.missing_cells, self.missing_others)
            verb = "undone" if self.is_rewind else "missing"
            return f"{state}; {verb}: {missing}" if missing else state
        return "the variables are as they were before this cell"

    def line(self) -> str:
        """Say it in one line, for a cell's stderr."""
        first = "" if self.is_rewind else f"{self.cause}. "
        state = self._moment()
        named = f" {self.name!r}" if self.name else ""
        at = datetime.fromtimestamp(self.taken_at, UTC).astimezone()
        how = f"snapshot{named} of {at:%H:%M:%S}, {self.way}, {_duration(self.seconds)}"
        parts = [f"{first}{state[0].upper()}{state[1:]} ({how})."]
        if self.lost:
            parts.append(f"Not back: {', '.join(self.lost)}.")
        if self.failed:
            told = ", ".join(f"{name} ({reason})" for name, reason in self.failed)
            parts.append(f"Not taken over: {told}.")
        line = " ".join(parts)
        return f"[unstuck] {line[0].upper()}{line[1:]}\n"

    def display_data(self) -> bytes:
        """Build the content of a display_data message."""
        summary = f"unstuck: {self.way} in {_duration(self.seconds)}"
        return replies.encode(
            {"data": {MIME_TYPE: self, "text/plain": summary}, "metadata": {}, "transient": {}}
        )


def make_account(
    copy: Copy,
    cause: str,
    way: Way,
    seconds: float,
    *,
    is_rewind: bool = False,
    is_idle: bool = False,
    came: int | None = None,
    failed: Sequence[tuple[str, str]] = (),
) -> Account:
    """Sum up a recovery from ``copy``, which said its word."""
    word = copy.word
    assert word is not None
    cells, others = count_effects(copy.since)
    return Account(
        cause=cause,
        way=way,
        snapshot=copy.number,
        name=copy.name,
        cell=copy.cell,
        taken_at=word.taken_at,
        seconds=seconds,
        missing_cells=cells,
        missing_others=others,
        lost=_lost(copy),
        failed=list(failed),
        came=came,
        is_rewind=is_rewind,
        is_idle=is_idle,
    )


def prospect(copy: Copy | None) -> str:
    """Say in a clause what a kill would cost now."""
    if copy is None or copy.word is None:
        return "all variables of this session will be lost"
    missing = name_effects(*count_effects(copy.since))
    if missing:
        after = f"after cell [{copy.cell}]" if copy.cell else "at the start"
        words = f"the variables will be as they were {after}; missing: {missing}"
    else:
        words = "the variables will be as they were before this cell"
    if not copy.is_promotable:
        words += "; what cannot be pickled will be lost"
    if lost := _lost(copy):
        words += f"; lost: {', '.join(lost)}"
    return words


def _lost(copy: Copy) -> list[str]:
    """Name what does not come back with this copy; a worker that takes over has no open comms."""
    assert copy.word is not None
    has_widgets = bool(copy.comms) and not copy.is_promotable
    return [*copy.word.lost, *(["the widgets in the page"] if has_widgets else [])]


def count_effects(effects: Sequence[Effect]) -> tuple[list[int], int]:
    """Give the execution counts of the cells, and how many other jobs there are."""
    cells = [effect.cell for effect in effects if effect.cell is not None]
    return cells, len(effects) - len(cells)


def name_effects(cells: Sequence[int], others: int) -> str:
    """Name cells, neighbours as a range: ``cells [3]-[5], [8] and 1 other request``."""
    runs: list[list[int]] = []
    for cell in sorted(set(cells)):
        if runs and cell == runs[-1][-1] + 1:
            runs[-1].append(cell)
        else:
            runs.append([cell])
    told = ", ".join(f"[{run[0]}]" if len(run) == 1 else f"[{run[0]}]-[{run[-1]}]" for run in runs)
    parts: list[str] = []
    if runs:
        parts.append(f"{'cell' if len(cells) == 1 else 'cells'} {told}")
    if others:
        parts.append(f"{others} other request{'' if others == 1 else 's'}")
    return " and ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
