"""The end of a worker that was asked to stop: what CPython does for the user's objects, no more.

Taking down every module takes CPython 20 ms and more, for which a restart would wait. User code
sees no difference: threads are joined and exit handlers have run before (in CPython's order), its
variables are dropped here with their finalizers, and open files are flushed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from unstuck_worker import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck_worker.lane import OutputLane
    from unstuck_worker.shell import UnstuckShell

_BUFFERED = (io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)
_LAST_ERROR = ("last_exc", "last_type", "last_value", "last_traceback")


class Farewell:
    """The last exit handler: the first to be registered, so that all others run before it."""

    def __init__(self) -> None:
        """End a process that has neither lane nor shell yet as CPython does."""
        self.lane: OutputLane | None = None
        self.shell: UnstuckShell | None = None
        self.close_loop: Callable[[], None] | None = None
        self.is_wanted = False
        """The broker has asked for this end: what comes later than this handler is left out."""
        self.keeps_objects = False
        """This was a dormant copy: libraries that lost their threads may crash when freed."""

    def __call__(self) -> None:
        """Drop what is the user's, write what is still to be written, and end the process."""
        if self.is_wanted and self.shell is not None:
            if self.close_loop is not None:
                self.close_loop()
            if not self.keeps_objects:
                _drop(self.shell)
            _flush_files()
            process.flush_all_c_streams()
        if self.lane is not None:
            self.lane.flush()
        if self.is_wanted:
            os._exit(0)


def _drop(shell: UnstuckShell) -> None:
    """Let go of what IPython's own handler has left, in CPython's order for ``__main__``."""
    namespace: dict[str, Any] = shell.user_ns
    hidden = [name for name in namespace if name.startswith("_") and name != "__builtins__"]
    for name in [*hidden, *(name for name in namespace if not name.startswith("_"))]:
        namespace[name] = None
    for name in _LAST_ERROR:
        sys.__dict__.pop(name, None)
    gc.collect()


def _flush_files() -> None:
    """Write what files that something else still holds have in their buffers."""
    for thing in gc.get_objects():
        # By its type: `isinstance` asks a proxy for its object, which may be gone.
        if issubclass(type(thing), _BUFFERED):
            # A closed file, a full disk, a subclass: CPython would not raise here either.
            with contextlib.suppress(Exception):
                thing.flush()
