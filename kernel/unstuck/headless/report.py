"""What a headless run has to tell: values, made by the runner, shown by the command line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Cause(Enum):
    """Why a cell failed."""

    error = "error"
    """It raised."""
    timeout = "timeout"
    """It ran longer than it may."""
    death = "death"
    """The kernel died under it."""
    stopped = "stopped"
    """The user, or who manages the process, stopped the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFailure:
    """One cell that did not end well."""

    cause: Cause
    cell_number: int
    """Its place in the notebook, counted from 1 over all cells, as an editor shows them."""
    first_line: str
    ename: str
    evalue: str
    traceback: Sequence[str] = ()
    """Lines, with the colours of the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How one notebook went."""

    notebook: Path
    output: Path
    cells: int
    """Code cells that are not empty."""
    cells_run: int
    failures: Sequence[CellFailure]
    """With errors allowed there may be several, else at most one."""
    errors_allowed: bool
    stopped: bool
    """Whether somebody ended the run from outside."""
    duration_s: float

    @property
    def passed(self) -> bool:
        """Whether all cells ran, and none failed in a way that was not allowed."""
        allowed = (Cause.error, Cause.timeout) if self.errors_allowed else ()
        return self.cells_run == self.cells and all(
            failure.cause in allowed for failure in self.failures
        )


class Observer(Protocol):
    """Who wants to follow a run; called in the runner's thread, and quick to return."""

    def notebook_started(self, notebook: Path, cells: int) -> None:
        """Hear that the kernel is about to start, for ``cells`` code cells."""
        ...

    def cell_started(self, number: int, first_line: str) -> None:
        """Hear that the ``number``-th code cell (from 1) is sent to the kernel."""
        ...

    def cell_ended(self, number: int, duration_s: float, *, failed: bool) -> None:
        """Hear that it ended."""
        ...

    def notebook_ended(self, report: Report) -> None:
        """Hear how the notebook went."""
        ...


class SilentObserver:
    """Follow nothing."""

    def notebook_started(self, notebook: Path, cells: int) -> None:
        """Say nothing."""

    def cell_started(self, number: int, first_line: str) -> None:
        """Say nothing."""

    def cell_ended(self, number: int, duration_s: float, *, failed: bool) -> None:
        """Say nothing."""

    def notebook_ended(self, report: Report) -> None:
        """Say nothing."""
