"""History requests: tail, range and search, as messaging specification 5.5 has them.

Threads: may be called from any thread. IPython opens its database for use by all threads, and
SQLite serialises single statements; the turn keeps the write of the cache and the read after it
together.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from unstuck_worker.introspect import answer
from unstuck_worker.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from IPython.core.history import HistoryAccessorBase
    from IPython.core.interactiveshell import InteractiveShell

    from unstuck.typing import Content

turns = Turns("history request")


class HistoryRequest(msgspec.Struct):
    """What a history_request says."""

    hist_access_type: Literal["tail", "range", "search"]
    output: bool = False
    raw: bool = True
    session: int = 0
    start: int = 0
    stop: int | None = None
    n: Annotated[int, msgspec.Meta(ge=0)] | None = None
    pattern: str | None = None
    unique: bool = False


def history(shell: InteractiveShell, content: Content) -> Content:
    """Answer a history_request."""
    return answer(HistoryRequest, content, partial(_history, shell))


def _history(shell: InteractiveShell, request: HistoryRequest) -> Content:
    manager = shell.history_manager
    if manager is None or not getattr(manager, "enabled", True):
        return {"status": "ok", "history": []}
    with turns.take():
        lines = list(_read(manager, request))
    return {"status": "ok", "history": lines}


def _read(manager: HistoryAccessorBase, request: HistoryRequest) -> Iterable[tuple[int, int, Any]]:
    """Give (session, line, input) of each line, or (session, line, (input, output))."""
    match request.hist_access_type:
        case "tail":
            return manager.get_tail(
                10 if request.n is None else request.n,
                raw=request.raw,
                output=request.output,
                include_latest=True,
            )
        case "range":
            lines = manager.get_range(
                request.session, request.start, request.stop, raw=request.raw, output=request.output
            )
            # IPython calls the current session 0 here, and by its number in a tail.
            own = getattr(manager, "session_number", 0)
            return ((session or own, line, text) for session, line, text in lines)
        case "search":
            return manager.search(
                request.pattern or "*",
                raw=request.raw,
                output=request.output,
                n=request.n,
                unique=request.unique,
            )
