"""Names of snapshots: one line of text that can be sent and shown in a table."""

from __future__ import annotations

NO_SNAPSHOTS = "there are no snapshots here: they need Linux, and ##process cells have none"


def as_name(name: object) -> str:
    """Give a name as it is sent and listed: without line breaks.

    Raises:
        TypeError: it is no string.
        ValueError: it cannot be encoded.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a snapshot is a string, not {type(name).__name__}")
    name.encode()
    return " ".join(name.split())
