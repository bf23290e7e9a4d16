"""What a transplant has brought."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What came of a session out of a donor, and what did not."""

    came: int
    """Variables."""
    failed: list[tuple[str, str]]
    """What has not come, with its reason."""
    size_bytes: int
    seconds: float
