"""The shell and what it prints to and asks with, before any thread, event loop or code of the user.

A process that is here and no further is whole after a fork: `unstuck_worker.template` forks it.
"""

from __future__ import annotations

import ast
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstuck.jobcontext import set_kernel
from unstuck.protocol import StreamName
from unstuck_worker.start import build_kernel, build_shell
from unstuck_worker.stdin import Inputs
from unstuck_worker.streams import Flood, OutStream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unstuck.protocol import Start
    from unstuck_worker.lane import OutputLane

_Stamp = dict[str, int | None]


class Interpreter:
    """What takes long to build, and is the same in each worker of a kernel."""

    def __init__(self, start: Start, lane: OutputLane) -> None:
        """Build the shell as the broker's `Start` describes it; its outputs go to ``lane``."""
        self.flood = Flood(lane)
        self.streams = [OutStream(name, lane, self.flood) for name in StreamName]
        sys.stdout, sys.stderr = self.streams
        self.shell, self.profile = build_shell(start, lane)
        self.inputs = Inputs(lane)
        self.inputs.install()
        self.shell.kernel = build_kernel(start, self.shell, lane)
        set_kernel(self.shell.kernel)
        self._stamps = _stamps(self._sources())

    def is_current(self) -> bool:
        """Say whether a shell that is built now would be the same, and this process is whole."""
        return threading.active_count() == 1 and self._stamps == _stamps(self._sources())

    def warm_up(self) -> None:
        """Do what the first cell of each process would do anew, here for all that are forked."""
        shell: Any = self.shell
        plain, _ = shell.transform("None")
        compile(shell.transform_ast(ast.parse(plain)), "<warm-up>", "exec")
        shell.display_formatter.format(None)

    def _sources(self) -> Iterable[str]:
        """Name what an installation or a change of the configuration touches."""
        yield from (str(path) for path in self.profile.files())
        for entry in sys.path:
            if os.path.basename(entry) in ("site-packages", "dist-packages"):  # noqa: PTH119
                yield entry


def _stamps(paths: Iterable[str]) -> _Stamp:
    return {path: _changed_ns(path) for path in paths}


def _changed_ns(path: str) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return None
