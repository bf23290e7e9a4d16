"""What is known of one cell while its code runs; each running cell has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult


class Cell:
    """One call of ``run_cell_async``; a cell run inside a cell knows its outer one."""

    __slots__ = (
        "count",
        "error",
        "is_at_its_end",
        "is_captured",
        "is_counted",
        "outer",
        "output",
        "payloads",
        "result",
        "showed_display_error",
        "shows_last_only",
        "source",
        "traceback",
    )

    def __init__(
        self, count: int, source: str, outer: Cell | None, *, shows_last_only: bool
    ) -> None:
        """Number the cell ``count``; ``source`` is its transformed code."""
        self.count = count
        self.source = source
        self.outer = outer
        self.shows_last_only = shows_last_only
        """Of its expressions only the last line is displayed."""
        self.is_at_its_end = False
        """What is displayed is the last that its code does."""
        self.is_counted = False
        """The cell has a line in the history, and its number is used up."""
        self.is_captured = False
        """An ``Output`` widget took outputs of this cell."""
        self.result: ExecutionResult | None = None
        """Where the display hook puts the value of the last expression."""
        self.output: dict[str, Any] | None = None
        """The execute_result under construction."""
        self.payloads: list[dict[str, Any]] = outer.payloads if outer else []
        self.traceback: list[str] | None = None
        self.showed_display_error = False
        self.error: tuple[str, str] | None = None
        """Name and message of the error that was shown last."""

    @property
    def next_count(self) -> int:
        """The number that ``execution_count`` shows to the code of this cell."""
        return self.count + 1 if self.is_counted else self.count
