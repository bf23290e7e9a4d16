"""What a cell hangs in: one line under it, renewed in place while the worker does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck_broker import replies
from unstuck_broker.actions import TakeStack
from unstuck_broker.outbox import NO_PARENT
from unstuck_broker.stacktext import locate

if TYPE_CHECKING:
    from unstuck_broker.core import Core
    from unstuck_broker.events import WorkerProgress

STACK_NUMBER = -1
"""Of the stack that a hang orders."""
_RENEW_S = 5.0


class Hangs:
    """Watches over the cell that keeps the worker's GIL; it reports and never acts."""

    def __init__(self, core: Core) -> None:
        """Report under the cells of ``core``."""
        self._core = core
        self._since_s: float | None = None
        self._next_s = 0.0
        self._where = ""
        self._parent = NO_PARENT
        """The cell under which the line stands."""

    def seconds(self, now: float) -> float | None:
        """Tell for how long the worker has not answered; None where it does, or nothing runs."""
        return None if self._since_s is None else now - self._since_s

    def forget(self) -> None:
        """Begin anew: nothing runs any more, or the worker is dead."""
        self._since_s = None
        self._where = ""

    def progress(self, event: WorkerProgress, now: float) -> None:
        """Take what the watch saw; order the stack once the hang is long enough to be told."""
        core = self._core
        after_s = core.config.hang_report_s
        is_reviving = core.revival.attempt is not None
        if event.gil_free or not core.running or not after_s or is_reviving:
            self._end(now)
            return
        if self._since_s is None:
            self._since_s = now - 1.0  # The question that has no answer was asked then.
            self._next_s = self._since_s + after_s
        if now < self._next_s:
            return
        self._next_s = now + _RENEW_S
        if self._where:
            self._show(now)
        else:
            self._core.out.order(TakeStack(STACK_NUMBER))

    def stack_taken(self, stack: str, numbers: tuple[int, ...], now: float) -> None:
        """Show where the cell hangs."""
        if STACK_NUMBER in numbers and self._since_s is not None:
            self._where = locate(stack)
            self._parent = self._find_parent()
            self._show(now)

    def _find_parent(self) -> bytes:
        """Find the cell that hangs: that of the main queue, else the newest beside it."""
        core = self._core
        cells = [job.request.header_json for job in core.running.values() if job.is_cell]
        return core.last_header if core.last_header in cells or not cells else cells[-1]

    def _show(self, now: float) -> None:
        assert self._since_s is not None
        text = f"\r[unstuck] no answer for {now - self._since_s:.0f} s: {self._where}"
        self._core.out.stream(self._parent, replies.STDERR, text, now)

    def _end(self, now: float) -> None:
        if self._where:
            self._core.out.stream(self._parent, replies.STDERR, "\n", now)
        self._since_s = None
        self._where = ""
