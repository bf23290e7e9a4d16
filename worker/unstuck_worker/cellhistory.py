"""The cells' history, saved in batches: a cell never waits for the disk.

Threads: cells of any thread add lines; the saving thread and history requests write them.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from IPython.core import history
from IPython.core.history import HistoryManager, HistorySavingThread
from typing_extensions import override

from unstuck_worker.snapshots.mark import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable

_END = "UPDATE sessions SET end = ?, num_cmds = ? WHERE session = ?"
SAVE_DELAY_S = 0.5
"""How long lines wait for others; a commit costs as much as many cells."""
WAKE_S = 3600.0
FORK_WAIT_S = 0.05
"""How long a snapshot waits for the saving thread."""


class CellHistory(HistoryManager):
    """IPython's history; its lines are written outside of the lock that cells need."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  (IPython's)
        """Touch no file and start no thread before `open`: this process may be forked."""
        self.is_open = False
        """Files and threads may be used."""
        self.writing = threading.Lock()
        """Held while the database is written from outside the main thread."""
        self._numbering = threading.RLock()
        self._number = 0
        super().__init__(**options)

    def open(self) -> None:
        """Open the database of the profile, if the configuration wants one."""
        self.is_open = True
        try:
            self.init_db()
        except sqlite3.OperationalError as error:
            self._do_without_file(error)
        if self.using_thread:
            self.save_thread = saver = BatchSaver(self)
            saver.start()

    @override
    def init_db(self) -> None:
        """Connect to the database; to none before `open`."""
        if self.is_open:
            super().init_db()
        else:
            self.db = history.DummyDB()
            # The first finalizer's handler runs after the shell's exit handler, which needs the db.
            weakref.finalize(self, self.db.close)

    @override
    def new_session(self, conn: sqlite3.Connection | None = None) -> None:
        """Number the session when its number is wanted first: a commit waits for the disk."""
        with self._numbering:
            self._number = 0
        del conn

    @property
    def session_number(self) -> int:
        """The number of this session in the database; 0 without one."""
        return self.number_session(self.db)

    @session_number.setter
    def session_number(self, number: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._number = number

    def number_session(self, connection: Any) -> int:  # noqa: ANN401  (a dummy where there is no history)
        """Give the session its number in the database."""
        with self._numbering:
            if not self._number and self.is_open and self.enabled:
                try:
                    super().new_session(connection)
                except sqlite3.OperationalError as error:
                    self._do_without_file(error)
            return self._number

    def _do_without_file(self, error: sqlite3.OperationalError) -> None:
        """Keep the history in memory where the file cannot be written."""
        self.log.error("History will not be saved in %s: %s", self.hist_file, error)
        self.using_thread = False
        self._switch_to_memory_history()

    def acquire(self) -> bool:
        """Keep the saving thread from the database until `release`: a fork comes."""
        return self.writing.acquire(timeout=FORK_WAIT_S)

    def release(self) -> None:
        """Let the saving thread go on."""
        self.writing.release()

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
        self.writing = threading.Lock()
        self._numbering = threading.RLock()
        self.db_input_cache_lock = threading.Lock()
        self.db_output_cache_lock = threading.Lock()
        saver, self.save_thread = self.save_thread, None
        known = len(self.input_hist_raw)
        for lines in (self.input_hist_parsed, self.input_hist_raw):
            lines.extend([""] * (counter - len(lines)))
        if self.enabled and str(self.hist_file) != ":memory:":
            # Nobody uses the original's connections, and each keeps a descriptor.
            _close(self.db)
            _close(getattr(saver, "connection", None))
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
        self._write(self.db if conn is None else conn)

    @override
    def end_session(self) -> None:
        """Write all lines that wait and the end of the session, in one commit."""
        number = self.session_number
        if number:
            ended = datetime.now(UTC).isoformat(" ")
            self._write(self.db, (ended, len(self.input_hist_parsed) - 1, number))
        self._number = 0

    def _write(self, connection: Any, end: tuple[str, int, int] | None = None) -> None:  # noqa: ANN401
        with self.writing:
            inputs, outputs = self._take()
            try:
                if inputs or outputs or end:
                    with connection:
                        _insert(connection, "history", 4, self._numbered(inputs))
                        _insert(connection, "output_history", 3, self._numbered(outputs))
                        if end:
                            connection.execute(_END, end)
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


def _close(connection: Any) -> None:  # noqa: ANN401  (a dummy, or none)
    if connection is not None:
        with suppress(sqlite3.Error):
            connection.close()


def _insert(
    connection: sqlite3.Connection, table: str, columns: int, lines: list[tuple[Any, ...]]
) -> None:
    if lines:
        marks = ", ".join("?" * columns)
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", lines)  # noqa: S608


class BatchSaver(HistorySavingThread):
    """Save what came within a short time at once."""

    def __init__(self, manager: HistoryManager) -> None:
        """Save for ``manager``."""
        super().__init__(manager)
        self._stopping = threading.Event()
        self.connection: sqlite3.Connection | None = None
        """Its own, while it saves; a copy, which has not this thread, closes it."""

    @override
    def run(self) -> None:
        """Save until `stop`."""
        manager = self.history_manager()
        if not self.enabled or manager is None:
            return
        connection = sqlite3.connect(str(manager.hist_file), **manager.connection_options)
        self.connection = connection
        assert isinstance(manager, CellHistory)
        with manager.writing:
            manager.number_session(connection)
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
    def start(self) -> None:
        """Start, once the history is open."""
        manager = self.history_manager()
        if isinstance(manager, CellHistory) and manager.is_open:
            super().start()

    @override
    def stop(self) -> None:
        """End the thread; what waits is written by `HistoryManager.end_session`."""
        self._stopping.set()
        if self.ident is not None:
            super().stop()


# HistoryManager makes its thread by this name, and has no other place to say which.
history.__dict__["HistorySavingThread"] = BatchSaver
# `%config` shows a class by its name, and configuration files and users say HistoryManager.
CellHistory.__name__ = CellHistory.__qualname__ = "HistoryManager"
