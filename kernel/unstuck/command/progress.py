"""How a headless run shows itself: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from unstuck.headless.report import CellFailure, Report, SilentObserver

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress, TaskID

HEAD_LINES = 8
TAIL_LINES = 8
LINE_WIDTH = 60


class PlainProgress(SilentObserver):
    """One line a cell, for logs."""

    def __init__(self, console: Console) -> None:
        """Write to ``console``."""
        self._console = console
        self._name = ""
        self._cells = 0
        self._line = ""

    @override
    def notebook_started(self, notebook: Path, cells: int) -> None:
        self._name, self._cells = notebook.name, cells
        self._print(f"{self._name}: {cells} {'cell' if cells == 1 else 'cells'}")

    @override
    def cell_started(self, number: int, first_line: str) -> None:
        self._line = first_line

    @override
    def cell_ended(self, number: int, duration_s: float, *, failed: bool) -> None:
        end = "failed" if failed else "done"
        place = f"{self._name}: [{number}/{self._cells}]"
        self._print(f"{place} {end} in {duration_s:.1f} s: {shorten(self._line)}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class BarProgress(SilentObserver):
    """A bar with the running cell's first line and the time it takes."""

    def __init__(self, console: Console) -> None:
        """Draw on ``console``, a terminal."""
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._done = 0

    @override
    def notebook_started(self, notebook: Path, cells: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._done = 0
        progress = Progress(
            TextColumn("{task.fields[notebook]}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False, style="dim"),
            console=self._console,
            transient=True,
        )
        self._task = progress.add_task("starting the kernel", total=cells, notebook=notebook.name)
        progress.start()
        self._progress = progress

    @override
    def cell_started(self, number: int, first_line: str) -> None:
        self._update(shorten(first_line))

    @override
    def cell_ended(self, number: int, duration_s: float, *, failed: bool) -> None:
        self._done = number
        self._update("")

    @override
    def notebook_ended(self, report: Report) -> None:
        self.close()

    def _update(self, description: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=description, completed=self._done)

    def close(self) -> None:
        """Take the bar away, so that what is printed next stands alone."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def shorten(line: str) -> str:
    """Cut a line of code to what fits beside a bar."""
    return line if len(line) <= LINE_WIDTH else line[: LINE_WIDTH - 1] + "…"


def describe(report: Report) -> str:
    """Say in one line how a notebook went."""
    count = f"{report.cells_run} of {report.cells} cells"
    if report.stopped:
        how = f"stopped after {count}"
    elif not report.passed:
        how = f"failed at cell {report.failures[-1].cell_number}" if report.failures else "failed"
        how += f" ({count})"
    elif report.failures:
        how = f"ran {count}, {len(report.failures)} of them with allowed errors"
    else:
        how = f"ran {count}"
    return f"{report.notebook}: {how} in {report.duration_s:.1f} s -> {report.output}"


def failure_lines(notebook: Path, failure: CellFailure) -> Sequence[str]:
    """Name a failure and its place, with both ends of its traceback."""
    head = f"{notebook}: cell {failure.cell_number}: {failure.ename}: {failure.evalue}"
    traceback = [line for line in failure.traceback if line.strip()]
    if len(traceback) > HEAD_LINES + TAIL_LINES:
        # The cell's own line is near one end, what was raised at the other.
        traceback = [*traceback[:HEAD_LINES], "...", *traceback[-TAIL_LINES:]]
    body = traceback or [failure.first_line]
    return [head.rstrip(": "), *(f"    {line}" for line in body)]
