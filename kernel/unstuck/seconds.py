"""Check times and limits that users give: numbers, not negative."""

from __future__ import annotations

import math


def check_seconds(value: object, what: str, owner: object) -> float:
    """Give ``value`` as a number of seconds; else as `check_number`."""
    return check_number(value, what, owner, "seconds")


def check_number(value: object, what: str, owner: object, unit: str = "") -> float:
    """Give ``value`` as a number.

    Args:
        value: what the user gave.
        what: its name in the error message, as "timeout" or "delay".
        owner: the Caller or future that it was given to.
        unit: what it is a number of, in the message.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, or not a number in the sense of floating point.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        of_unit = f" of {unit}" if unit else ""
        raise TypeError(f"{owner!r}: {what} must be a number{of_unit}, not {value!r}")
    if math.isnan(value) or value < 0:
        units = f" {unit}" if unit else ""
        raise ValueError(f"{owner!r}: {what} must be zero or more{units}, not {value!r}")
    return float(value)


def check_timeout(value: object, owner: object) -> float | None:
    """Give ``value`` as a timeout in seconds; None and infinity are no limit."""
    if value is None:
        return None
    seconds = check_seconds(value, "timeout", owner)
    return None if seconds == math.inf else seconds
