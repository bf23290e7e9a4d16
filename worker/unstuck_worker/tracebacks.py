"""Tracebacks of exceptions that IPython's own formatter cannot show."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


def holds_group(error: BaseException | None) -> bool:
    """Tell whether an exception is a group, or came while one was handled."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, BaseExceptionGroup):
            return True
        seen.add(id(error))
        error = error.__context__
    return False


def format_plainly(
    etype: type[BaseException], error: BaseException, trace: TracebackType | None
) -> list[str]:
    """Format as Python does; where the exception does not let itself be shown, say so."""
    try:
        lines = traceback.format_exception(etype, error, trace)
    except Exception as failure:  # noqa: BLE001 - user code formats itself
        lines = [f"{etype.__name__}: <{type(failure).__name__} while it was formatted>"]
    return [line.rstrip("\n") for line in lines]
