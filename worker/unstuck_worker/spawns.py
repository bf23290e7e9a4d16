"""Notice that a cell has started processes, which may go on writing when it has ended.

An audit hook would see more, but make every ``id()`` and ``open()`` of user code slower.
"""

from __future__ import annotations

import _posixsubprocess
import os
import subprocess
from functools import wraps
from typing import TYPE_CHECKING, Any

from unstuck_worker.snapshots.mark import Mark

if TYPE_CHECKING:
    from collections.abc import Callable

_OS_CALLS = ("system", "posix_spawn", "posix_spawnp")


class Spawns:
    """Whether any process was started since `take`."""

    def __init__(self, flush: Callable[[], None]) -> None:
        """Notice nothing before `watch`.

        Args:
            flush: writes out what the cell has printed: it comes before what the process prints.
        """
        self._seen = False
        self._flush = flush

    def watch(self) -> None:
        """Notice every process that Python code starts from here on."""
        os.register_at_fork(before=self._note)
        for name in _OS_CALLS:
            if hasattr(os, name):
                setattr(os, name, self._noting(getattr(os, name)))
        noting = self._noting(_posixsubprocess.fork_exec)
        _posixsubprocess.fork_exec = noting
        # Its own name for the same function.
        subprocess.__dict__["_fork_exec"] = noting

    def take(self) -> bool:
        """Say whether a process was started since the last call."""
        seen, self._seen = self._seen, False
        return seen

    def _note(self) -> None:
        if not Mark.is_snapshot:
            self._seen = True

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self._seen = True
            self._flush()
            return function(*args, **kwargs)

        return call
