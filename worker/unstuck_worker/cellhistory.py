"""The cells' history, saved in batches: a cell never waits for the disk.

Threads: cells of any thread add lines; the saving thread and history requests write them.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from IPython.core import history
from IPython.core.history import HistoryManager, HistorySavingThread
from typing_extensions import override

from unstuck_worker.snapshots.mark import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable

SAVE_DELAY_S = 0.5
"""How long lines wait for others; a commit costs as much as many cells."""
WAKE_S = 3600.0
FORK_WAIT_S = 0.05
"""How long a snapshot waits for the saving thread."""

_kept: list[object] = []
"""Connections that a copy has inherited: closed in it they would release no lock of ours."""


class CellHistory(HistoryManager):
    """IPython's history; its lines are written outside of the lock that cells need."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  (IPython's)
        """Open the database of the profile."""
        self._writing = threading.Lock()
        super().__init__(*arguments, **options)

    def acquire(self) -> bool:
        """Keep the saving thread from the database until `release`: a fork comes."""
        return self._writing.acquire(timeout=FORK_WAIT_S)

    def release(self) -> None:
        """Let the saving thread go on."""
        self._writing.release()

    @override
    def _stop_save_thread(self) -> None:
        # IPython ends the thread before each fork. Before ours it waits: see `acquire`.
        if not Mark.is_snapshot:
            super()._stop_save_thread()

    def revive(self, counter: int) -> None:
        """Go on in a copy, whose original may have saved what waits here.

        Args:
            counter: the number of the next cell; ``In`` is as long as that.
        """
        self._writing = threading.Lock()
        self.db_input_cache_lock = threading.Lock()
        self.db_output_cache_lock = threading.Lock()
        self.save_thread = None
        known = len(self.input_hist_raw)
        for lines in (self.input_hist_parsed, self.input_hist_raw):
            lines.extend([""] * (counter - len(lines)))
        if self.enabled and str(self.hist_file) != ":memory:":
            _kept.append(self.db)
            self.init_db()
            self._read_lost(known, counter)
            self.db_input_cache = self._unsaved("history", self.db_input_cache)
            self.db_output_cache = self._unsaved("output_history", self.db_output_cache)

    def _read_lost(self, first: int, end: int) -> None:
        """Read the lines of cells that ran in the original after this copy was made."""
        rows = self.db.execute(
            "SELECT line, source, source_raw FROM history"
            " WHERE session = ? AND line >= ? AND line < ?",
            (self.session_number, first, end),
        )
        for line, source, raw in rows:
            self.input_hist_parsed[line] = source
            self.input_hist_raw[line] = raw

    def _unsaved(self, table: str, lines: list[Any]) -> list[Any]:
        query = f"SELECT line FROM {table} WHERE session = ?"  # noqa: S608  (a name of ours)
        saved = {line for (line,) in self.db.execute(query, (self.session_number,))}
        return [line for line in lines if line[0] not in saved]

    @override
    def writeout_cache(self, conn: sqlite3.Connection | None = None) -> None:
        """Write all lines that wait."""
        if not self.enabled:
            return
        connection: Any = self.db if conn is None else conn
        with self._writing:
            inputs, outputs = self._take()
            try:
                _insert(connection, "history", 4, self._numbered(inputs))
                _insert(connection, "output_history", 3, self._numbered(outputs))
            except sqlite3.IntegrityError:
                # Another kernel has this session's number: IPython moves to a new one.
                self.db_input_cache[:0] = inputs
                self.db_output_cache[:0] = outputs
                super().writeout_cache(connection)

    def _take(self) -> tuple[list[Any], list[Any]]:
        with self.db_input_cache_lock:
            inputs, self.db_input_cache = list(self.db_input_cache), []
        with self.db_output_cache_lock:
            outputs, self.db_output_cache = list(self.db_output_cache), []
        return inputs, outputs

    def _numbered(self, lines: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [(self.session_number, *line) for line in lines]


def _insert(
    connection: sqlite3.Connection, table: str, columns: int, lines: list[tuple[Any, ...]]
) -> None:
    if lines:
        marks = ", ".join("?" * columns)
        with connection:
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", lines)  # noqa: S608


class BatchSaver(HistorySavingThread):
    """Save what came within a short time at once."""

    def __init__(self, manager: HistoryManager) -> None:
        """Save for ``manager``."""
        super().__init__(manager)
        self._stopping = threading.Event()

    @override
    def run(self) -> None:
        """Save until `stop`."""
        manager = self.history_manager()
        if not self.enabled or manager is None:
            return
        connection = sqlite3.connect(str(manager.hist_file), **manager.connection_options)
        del manager
        try:
            while not self._stopping.is_set():
                if self.save_flag.wait(WAKE_S) and not self._stopping.wait(SAVE_DELAY_S):
                    self.save_flag.clear()
                    self._save(connection)
        finally:
            connection.close()

    def _save(self, connection: sqlite3.Connection) -> None:
        manager = self.history_manager()
        if manager is None:
            self._stopping.set()
            return
        try:
            manager.writeout_cache(connection)
        except sqlite3.Error as error:
            manager.log.warning("history is not saved: %s", error)

    @override
    def stop(self) -> None:
        """End the thread; what waits is written by `HistoryManager.end_session`."""
        self._stopping.set()
        super().stop()


# HistoryManager makes its thread by this name, and has no other place to say which.
history.__dict__["HistorySavingThread"] = BatchSaver
