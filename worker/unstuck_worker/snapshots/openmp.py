"""OpenMP's thread pools: paused before a fork, since they never work again in a copy."""

from __future__ import annotations

import ctypes
import os

from unstuck_worker.snapshots.libraries import library_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_RUNTIMES = ("libgomp", "libomp", "libiomp5")
_SOFT = 1


class OpenMP:
    """The OpenMP runtimes of this process."""

    def __init__(self) -> None:
        """Know none yet."""
        self._pauses: dict[str, Callable[[int], int]] = {}

    def find(self, names: frozenset[str]) -> None:
        """Look which runtimes are among the loaded libraries, given by file name."""
        wanted = {name for name in names if name.startswith(_RUNTIMES)}
        if wanted <= self._pauses.keys():
            return
        for path in library_paths():
            name = os.path.basename(path)  # noqa: PTH119
            if name in wanted and name not in self._pauses:
                # RTLD_NOLOAD: the one that is loaded, and never another one.
                library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
                pause = getattr(library, "omp_pause_resource_all", None)
                self._pauses[name] = pause or (lambda _kind: 0)

    def pause(self) -> None:
        """End this thread's pool in each runtime; the next parallel loop starts it again."""
        for pause in self._pauses.values():
            pause(_SOFT)
