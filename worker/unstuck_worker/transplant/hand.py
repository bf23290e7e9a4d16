"""A thread that makes calls one after another, each with a deadline; one that hangs is given up.

Threads: a `Hand` belongs to the thread that calls; what it calls runs in a thread of its own, where
the thread pools of OpenMP are fresh: those of a forked copy's main thread are dead.
"""

from __future__ import annotations

import ctypes
import queue
import threading
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
_IDLE_S = 3600.0

_Answer = tuple[object, BaseException | None]
_Calls = queue.SimpleQueue["tuple[Callable[[], object], queue.SimpleQueue[_Answer]] | None"]


class TooLong(Exception):
    """A call has not come back by its deadline."""

    def __init__(self, deadline_s: float) -> None:
        """Say how long it was waited for."""
        super().__init__(f"not ready within {deadline_s:g} s")


class Quit(Exception):
    """A call has raised what ends a program (``SystemExit`` and the like); it ends nobody else."""

    def __init__(self, raised: BaseException) -> None:
        """Carry what was raised."""
        super().__init__()
        self.raised = raised


class Given(Exception):
    """Raised in a thread whose call was given up, so that Python code in it ends."""


class Hand:
    """Makes calls in its thread; a new thread after one that hung."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._calls: _Calls | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the thread end."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    def call(self, function: Callable[[], T], deadline_s: float) -> T:
        """Call in the thread; give what it gives, raise what it raises.

        Raises:
            TooLong: the call goes on after ``deadline_s``; its thread is left to itself.
            Quit: it has raised something that is no ``Exception``.
        """
        answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._ready().put((function, answers))
        try:
            value, error = answers.get(timeout=deadline_s)
        except queue.Empty:
            self._give_up()
            raise TooLong(deadline_s) from None
        except BaseException:  # An interrupt of the thread that waits.
            self._give_up()
            raise
        if error is not None:
            raise error if isinstance(error, Exception) else Quit(error)
        return cast("T", value)

    def _ready(self) -> _Calls:
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            self._thread = threading.Thread(
                target=_work, args=(self._calls,), name="unstuck-transplant", daemon=True
            )
            self._thread.start()
        return self._calls

    def _give_up(self) -> None:
        thread, self._calls = self._thread, None
        if thread is not None and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(Given)
            )


def _work(calls: _Calls) -> None:
    try:
        while (call := calls.get(timeout=_IDLE_S)) is not None:
            function, answers = call
            try:
                answers.put((function(), None))
            except Given:
                return
            except BaseException as error:  # noqa: BLE001  (raised again where it was called)
                answers.put((None, error))
            del function, answers, call
    except (Given, queue.Empty):
        return
