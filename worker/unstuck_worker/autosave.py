"""Save the session to a checkpoint while nothing runs, and restore it in a kernel's first worker.

Threads: the event loop's; a save runs in a thread of its own, and is given up when a cell starts:
so no cell waits for it, and no checkpoint holds half of what a cell does.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

IDLE_S = 1.0
"""How long nothing must have run before a save begins."""


class _CellStarted(Exception):
    """Raised inside a save that must not go on."""


class Autosave:
    """Saves one shell's session."""

    def __init__(
        self,
        shell: Any,  # noqa: ANN401  (IPython's is untyped)
        loop: asyncio.AbstractEventLoop,
        is_idle: Callable[[], bool],
        *,
        restores: bool,
    ) -> None:
        """Save the session of ``shell`` when ``is_idle`` says that nothing runs.

        Args:
            shell: the session's.
            loop: the main thread's.
            is_idle: tells whether nothing runs.
            restores: load ``restore_file`` at the beginning.
        """
        self._shell = shell
        self._loop = loop
        self._is_idle = is_idle
        self._restores = restores
        self._folder = Path.cwd()
        self._timer: asyncio.TimerHandle | None = None
        self._saved_s = loop.time()
        self._has_started = threading.Event()
        self._is_saving = False
        self._note = ""

    @property
    def _settings(self) -> Mapping[str, Any]:
        settings: Mapping[str, Any] = self._shell.kernel.settings
        return settings

    def begin(self) -> None:
        """Restore what the settings say, and watch the cells from here on."""
        events = self._shell.events
        events.register("pre_execute", self._cell_starts)
        events.register("post_execute", self._cell_ended)
        if self._restores and (name := self._settings.get("restore_file")):
            self._restore(self._folder / Path(name).expanduser())

    def _restore(self, path: Path) -> None:
        from unstuck_worker.checkpoint import load_path  # noqa: PLC0415  (only when asked for)

        if not path.exists():
            return  # The first time of all.
        try:
            self._note = load_path(self._shell, str(path), is_fresh=True)
        except UsageError as error:
            self._note = f"Nothing is restored: {error}\n"

    def _cell_starts(self) -> None:
        self._has_started.set()
        if self._note:
            note, self._note = self._note, ""
            sys.stderr.write(note)

    def _cell_ended(self) -> None:
        """Plan a save; may be called in any thread."""
        if self._settings.get("autosave_file") and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._plan)

    def _plan(self) -> None:
        if self._timer is None and not self._is_saving:
            due_s = self._saved_s + float(self._settings.get("autosave_every_s", 0.0))
            self._timer = self._loop.call_at(max(due_s, self._loop.time() + IDLE_S), self._save)

    def _save(self) -> None:
        self._timer = None
        name = self._settings.get("autosave_file")
        if not name:
            return
        if not self._is_idle():
            self._timer = self._loop.call_later(IDLE_S, self._save)
            return
        self._is_saving = True
        self._has_started.clear()
        path = self._folder / Path(name).expanduser()
        threading.Thread(
            target=self._write, args=(path,), name="unstuck-autosave", daemon=True
        ).start()

    def _write(self, path: Path) -> None:
        from unstuck_worker.transplant.file import CheckpointError, save  # noqa: PLC0415

        is_saved = False
        try:
            save(self._shell, path, progress=self._check)
            is_saved = True
        except _CellStarted:
            pass
        except CheckpointError as error:
            self._note = f"The session is not saved: {error}\n"
        finally:
            self._loop.call_soon_threadsafe(self._end, is_saved)

    def _check(self, _done: int, _total: int, _name: str) -> None:
        if self._has_started.is_set():
            raise _CellStarted

    def _end(self, is_saved: bool) -> None:
        self._is_saving = False
        if is_saved:
            self._saved_s = self._loop.time()
        if self._has_started.is_set():
            self._plan()
