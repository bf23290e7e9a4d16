"""The mark that tells a fork for a snapshot from a fork by user code."""

from __future__ import annotations


class Mark:
    """What hooks around a fork look at.

    Threads: set in the main thread, which forks; a fork of another thread at the same time cannot
    be, since the main thread holds the GIL from the mark to its fork.
    """

    is_snapshot = False
    """The fork that comes, or has just been, makes a dormant copy: not a user's child process."""
