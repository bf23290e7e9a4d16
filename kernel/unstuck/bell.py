"""Wake an event loop from any thread, for less than its own means cost.

Threads: `ring` from any; the rest belongs to the thread of the loop.
"""

from __future__ import annotations

import os


class Bell:
    """A counter in the operating system (eventfd, Linux only), which a loop watches.

    It is closed when nobody can ring any more, not before: its number would soon be another file's.
    """

    __slots__ = ("descriptor",)

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        """Wake the loop; many rings before it looks are one."""
        os.eventfd_write(self.descriptor, 1)

    def clear(self) -> None:
        """Forget the rings so far."""
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return

    def __del__(self) -> None:
        os.close(self.descriptor)


def make_bell() -> Bell | None:
    """Make a bell, where the system has them."""
    return Bell() if hasattr(os, "eventfd") else None
