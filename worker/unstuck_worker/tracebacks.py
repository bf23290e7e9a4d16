"""Tracebacks of exceptions that IPython's own formatter cannot show."""

from __future__ import annotations

import traceback
from types import TracebackType

DEEP_FRAMES = 200
"""IPython takes milliseconds for each; Python folds those of a recursion."""
USER_FAILURES = (Exception, SystemExit, GeneratorExit)
"""What an exception of the user's may raise while it is shown; an interrupt is none of these."""
_RUNNER = "IPython.core.interactiveshell"
_OURS = ("unstuck_worker", "unstuck_broker", "unstuck")


def hide_our_frames(error: BaseException, trace: TracebackType | None) -> TracebackType | None:
    """Take the kernel's own frames out of a traceback: they say nothing to a user.

    Args:
        error: gets the shortened traceback as well, for ``%debug``.
        trace: where the error went.
    """
    entries: list[TracebackType] = []
    at = trace
    while at is not None:
        entries.append(at)
        at = at.tb_next
    kept = [entry for entry in entries if not _is_ours(entry)]
    if not kept or len(kept) == len(entries):
        return trace
    shown: TracebackType | None = None
    for entry in reversed(kept):
        shown = TracebackType(shown, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = shown
    return shown


def _is_ours(entry: TracebackType) -> bool:
    return _module(entry).partition(".")[0] in _OURS


def _module(entry: TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__", ""))


def holds_group(error: BaseException | None) -> bool:
    """Tell whether an exception is a group, or came while one was handled."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, BaseExceptionGroup):
            return True
        seen.add(id(error))
        error = error.__context__
    return False


def is_deep(error: BaseException | None) -> bool:
    """Tell whether an exception has so many frames that IPython would take seconds to show them."""
    seen: set[int] = set()
    frames = 0
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        at = error.__traceback__
        while at is not None and frames <= DEEP_FRAMES:
            frames += 1
            at = at.tb_next
        error = error.__cause__ or error.__context__
    return frames > DEEP_FRAMES


def format_plainly(
    etype: type[BaseException], error: BaseException, trace: TracebackType | None
) -> list[str]:
    """Format as Python does; where the exception does not let itself be shown, say so."""
    shown = trace
    while shown is not None and _module(shown) == _RUNNER:
        shown = shown.tb_next
    try:
        lines = traceback.format_exception(etype, error, shown or trace)
    except USER_FAILURES as failure:
        lines = [f"{etype.__name__}: <{type(failure).__name__} while it was formatted>"]
    return [line.rstrip("\n") for line in lines]
