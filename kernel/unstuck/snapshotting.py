"""``unstuck.snapshot()``: what user code asks about snapshots of its session."""

from __future__ import annotations

from unstuck.utils import get_kernel


def snapshot(name: str = "") -> None:
    """Keep the variables as they are once the running cell has ended; `%rewind NAME` goes back.

    Raises:
        RuntimeError: this code runs in no unstuck kernel, or there are no snapshots here.
        TypeError: the name is no string.
    """
    get_kernel().take_snapshot(name)
