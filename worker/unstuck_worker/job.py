"""A job while it runs: where its code is, and how a KeyboardInterrupt gets there.

Threads: `enter`, `leave` and `end` are called in the thread that runs the job, the others in any.
The lock makes sure that an asynchronous exception is set only while the job's own code runs.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextlib import AbstractContextManager
    from types import CoroutineType

    from unstuck.jobcontext import JobContext
    from unstuck.protocol import Outcome

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)

BLOCKED_S = 0.1
"""An event loop that has not woken a job for so long is held up by code that does not await."""


class Reply(NamedTuple):
    """What the end of a job says."""

    outcome: Outcome
    content: bytes
    metadata: bytes = b"{}"
    stop_on_error: bool = False
    is_captured: bool = False
    """An ``Output`` widget took outputs of this cell."""


class Stepping:
    """Which job's code a thread runs at this moment; the innermost one, where event loops nest."""

    job: RunningJob | None = None


class RunningJob:
    """One job from its first step to its end."""

    def __init__(self, context: JobContext, stepping: Stepping) -> None:
        """Run in this thread; ``stepping`` is the thread's."""
        self.context = context
        self.thread_ident = threading.get_ident()
        self.reply: Reply | None = None
        """Set by the job's code at its end, before anything can interrupt it."""
        self.is_ended = False
        self.cancel: Callable[[], None] | None = None
        """Wake the job where it awaits; may be called in any thread."""
        self._stepping = stepping
        self._outer: RunningJob | None = None
        self._is_stepping = False
        self._is_interrupted = False
        self._is_attached = False
        """An event loop wakes it; what a thread does for it, that thread's own `cancel` ends."""
        self._wanted_s: float | None = None
        """Since when its event loop is asked to wake it and has not yet done so."""
        self._lock = threading.Lock()
        self._task: asyncio.Task[Any] | None = None
        self.scope: AbstractContextManager[Any] = nullcontext()
        """Entered while the job is awaited; what trio cancels."""

    def attach(self) -> None:
        """Let an interrupt wake the job where it awaits, in the event loop that runs here."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._attach_to_trio()
            return
        task = asyncio.current_task()
        if task is not None:
            self._task = task
            self._is_attached = True
            self.cancel = lambda: _call_threadsafe(loop, self._wake, task.cancel)

    def _attach_to_trio(self) -> None:
        import trio  # noqa: PLC0415  (an optional dependency; this is its thread)

        token = trio.lowlevel.current_trio_token()
        scope = self.scope = trio.CancelScope()
        self._is_attached = True
        self.cancel = lambda: token.run_sync_soon(self._wake, scope.cancel)

    def _wake(self, cancel: Callable[[], object]) -> None:
        """Wake the job, in its event loop."""
        self._wanted_s = None
        cancel()

    def enter(self) -> None:
        """Note that the job's code runs from here."""
        if self._stepping.job is not self:  # A late interrupt may have cut a `leave` short.
            self._outer = self._stepping.job
        with self._lock:
            self._is_stepping = True
        self._stepping.job = self

    def leave(self) -> None:
        """Note that the job's code does not run; what was raised too late is raised here."""
        self._stepping.job = self._outer
        with self._lock:
            self._is_stepping = False
        _checkpoint()

    def end(self) -> None:
        """Let no interrupt reach this job any more."""
        for _ in range(3):
            try:
                if self._stepping.job is self:
                    self._stepping.job = self._outer
                with self._lock:
                    self._is_stepping = False
                    self.is_ended = True
                _checkpoint()
            except KeyboardInterrupt:
                continue
            return

    def is_stepping_in(self, stepping: Stepping) -> bool:
        """Say whether the job's own code is what that thread runs now."""
        return stepping.job is self and self._is_stepping

    def interrupt_wait(self) -> bool:
        """Raise KeyboardInterrupt where the job awaits, or at its next await.

        Returns:
            False when its event loop has not come to do so since an earlier time: something holds
            it up.
        """
        now, wanted = time.monotonic(), self._wanted_s
        self._is_interrupted = True
        if self.cancel is not None and not self.is_ended:
            if self._is_attached and wanted is None:
                self._wanted_s = now
            self.cancel()
        return wanted is None or now - wanted < BLOCKED_S

    def interrupt_blocker(self) -> None:
        """Raise KeyboardInterrupt in the job's thread, whose event loop something holds up."""
        with self._lock:
            if not self.is_ended:
                _set_async_exc(self.thread_ident, KeyboardInterrupt)

    def interrupt_thread(self) -> bool:
        """Raise KeyboardInterrupt in the job's thread if its code runs; say whether it did."""
        with self._lock:
            if not self._is_stepping or self.is_ended:
                return False
            _set_async_exc(self.thread_ident, KeyboardInterrupt)
            return True

    def translate(self, error: BaseException) -> BaseException:
        """Make a KeyboardInterrupt of the cancellation that carried it."""
        if not self._is_interrupted or isinstance(error, GeneratorExit):
            return error
        self._is_interrupted = False
        if self._task is not None:
            self._task.uncancel()
        return KeyboardInterrupt()

    def translate_outcome(self, value: Any) -> Any:  # noqa: ANN401  (what event loops send)
        """Make a KeyboardInterrupt of trio's cancellation, which comes as a value."""
        if self._is_interrupted and isinstance(getattr(value, "error", None), BaseException):
            self._is_interrupted = False
            return type(value)(KeyboardInterrupt())
        return value


def _call_threadsafe(
    loop: asyncio.AbstractEventLoop,
    call: Callable[[Callable[[], object]], object],
    argument: Callable[[], object],
) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, argument)


def _checkpoint() -> None:
    """Do nothing; the call lets the interpreter raise what is pending."""


class Steps:
    """Await a coroutine, noting before and after each step whether its code runs."""

    def __init__(self, running: RunningJob, code: Coroutine[Any, Any, Reply]) -> None:
        """Run ``code``, which sets ``running.reply``."""
        self._running = running
        self._code = cast("CoroutineType[Any, Any, Reply]", code)

    def __await__(self) -> Generator[Any, Any, Reply]:
        """Drive the coroutine under any event loop."""
        running, code = self._running, self._code
        step: Callable[[Any], Any] = code.send
        argument: Any = None
        while True:
            try:
                waited = self._step(step, argument)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            except KeyboardInterrupt as late:
                if code.cr_frame is None:
                    if running.reply is not None:
                        return running.reply
                    raise
                # It came between a step and its end: the code has not seen it yet.
                step, argument = code.throw, late
                continue
            try:
                argument = running.translate_outcome((yield waited))
                step = code.send
            except BaseException as error:  # noqa: BLE001  (handed on to the code)
                step, argument = code.throw, running.translate(error)

    def _step(self, step: Callable[[Any], Any], argument: Any) -> Any:  # noqa: ANN401
        running = self._running
        try:
            running.enter()
            return step(argument)
        finally:
            running.leave()
