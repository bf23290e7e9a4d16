"""One thing that was looked at, and what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    good = "good"
    note = "note"
    """Nothing is broken; somebody who wonders about something should know."""
    wrong = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, in words."""

    level: Level
    subject: str
    seen: str
    remedy: str = ""
    """What to do about it; empty where there is nothing to do."""


def good(subject: str, seen: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(Level.good, subject, seen)


def note(subject: str, seen: str, remedy: str = "") -> Finding:
    """Say something that is worth knowing."""
    return Finding(Level.note, subject, seen, remedy)


def wrong(subject: str, seen: str, remedy: str) -> Finding:
    """Say what is wrong and what to do."""
    return Finding(Level.wrong, subject, seen, remedy)
