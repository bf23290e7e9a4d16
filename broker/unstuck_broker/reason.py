"""Why a worker is killed: what the supervisor is told, and what a cell's reply makes of it."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Why(Enum):
    """Who or what wants a worker's end."""

    INTERRUPT = "interrupt"
    """A cell did not react to its interrupt."""
    TIMEOUT = "timeout"
    """A cell did not end within its timeout."""
    MEMORY = "memory_bytes"
    """Its process tree is beyond this limit."""
    PROCESSES = "processes"
    """Its process tree is beyond this limit."""
    RESTART = "restart"
    """A restart was asked for."""
    STOP = "stop"
    """It was asked to end and has not."""
    START = "start"
    """It could not be started, or its shell was not there in time."""
    SNAPSHOT = "snapshot"
    """It did not come back from the fork of a snapshot."""
    REWIND = "rewind"
    """A rewind was asked for."""
    LANE_CLOSED = "lane closed"
    """It has closed its output lane; a dying worker does so, too."""
    LANE_BROKEN = "lane broken"
    """It wrote rubbish into its output lane, or the lane failed."""


class Reason(Struct, frozen=True):
    """Why, and the same in words for the user."""

    why: Why
    words: str = ""


INTERRUPT = Reason(Why.INTERRUPT, "the cell did not react to its interrupt")
TIMEOUT = Reason(Why.TIMEOUT, "the cell did not end within its timeout")
RESTART = Reason(Why.RESTART, "restart")
STOP = Reason(Why.STOP)
REWIND = Reason(Why.REWIND, "rewind")

_LIMITS = {Why.MEMORY: "MemoryError", Why.PROCESSES: "ProcessLimitExceeded"}


def over_limit(limit: Why, used: int, allowed: int) -> Reason:
    """Say which limit of the user's was passed, and by how much."""
    if limit is Why.MEMORY:
        words = (
            f"the process tree used {_megabytes(used)}; "
            f"the limit memory_bytes is {_megabytes(allowed)}"
        )
    else:
        words = f"the process tree had {used} processes; the limit processes is {allowed}"
    return Reason(limit, words)


def error_name(reason: Reason | None) -> str:
    """Name the error of a cell that a worker's death has ended."""
    return "WorkerDied" if reason is None else _LIMITS.get(reason.why, "WorkerDied")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"
