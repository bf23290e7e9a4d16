"""The broker's log: lines on stderr, one an event."""

from __future__ import annotations

import contextlib
import sys


def log(line: str) -> None:
    """Write one line; a closed stderr is nobody's concern."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"unstuck {line}\n")
        sys.stderr.flush()
