"""Tell a person what is in a checkpoint, and what is not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from unstuck_worker.transplant.names import is_users, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from unstuck_worker.transplant.carrying import Carried, Luggage
    from unstuck_worker.transplant.parts import Header

MAX_NAMED = 40


def describe_saved(path: Path, carried: Carried, spent_s: float) -> str:
    """Tell what was saved and what was not."""
    head = f"Saved {_count(carried.came)} ({size(carried.size_bytes)}) to {path}"
    return f"{head} in {spent_s:.2g} s.\n{list_missing(carried.missing, 'Not saved')}"


def describe_loaded(path: Path, header: Header, carried: Carried, spent_s: float) -> str:
    """Tell what has come and what has not."""
    head = (
        f"Loaded {_count(carried.came)} ({size(carried.size_bytes)}) from {path}, saved"
        f" {header.saved_at} after cell {header.cell}, in {spent_s:.2g} s."
    )
    return f"{head}\n{_versions(header)}{list_missing(carried.missing, 'Not loaded')}"


def describe(path: Path, found: Luggage) -> str:
    """Tell what a file holds."""
    header = found.header
    kept = sorted(name for group, _ in found.groups for name in group.names if is_users(name))
    named = ", ".join(kept[:MAX_NAMED]) + (", …" if len(kept) > MAX_NAMED else "")
    lines = [
        f"{path}: {_count(len(kept))}, {size(found.size_bytes)}",
        f"saved {header.saved_at} after cell {header.cell}",
        f"by unstuck {header.unstuck}, Python {header.python}, {header.machine}",
        f"holds {named or 'no variables'}",
    ]
    return "\n".join(lines) + f"\n{_versions(header)}{list_missing(found.missing, 'Not in it')}"


def list_missing(missing: Mapping[str, str], what: str) -> str:
    """Name what has not come, each with its reason."""
    if not missing:
        return ""
    rows = [f"  {shown(name)}: {reason}" for name, reason in missing.items()]
    more = [f"  and {len(rows) - MAX_NAMED} more"] if len(rows) > MAX_NAMED else []
    return "\n".join([f"{what}:", *rows[:MAX_NAMED], *more]) + "\n"


def _versions(header: Header) -> str:
    """Name the libraries that have another version here, as far as they are loaded."""
    other = [
        f"{name} {there} (here {here})"
        for name, there in sorted(header.packages.items())
        if isinstance(here := getattr(sys.modules.get(name), "__version__", None), str)
        and "".join(here) != there
    ]
    return f"Saved with other versions: {', '.join(other)}\n" if other else ""


def size(size_bytes: int) -> str:
    """Write a size for a person."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


def _count(number: int) -> str:
    return "1 variable" if number == 1 else f"{number} variables"
