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
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextlib import AbstractContextManager
    from types import CoroutineType

    import trio

    from unstuck.future import Future
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


class Wish:
    """That an event loop wakes a job which awaits: since when, while it has not done so."""

    __slots__ = ("_since_s",)

    def __init__(self) -> None:
        """Wish for nothing yet."""
        self._since_s: float | None = None

    def ask(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Have asyncio's loop wake the job; in any thread."""
        self._begin()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, loop, task)

    def ask_trio(self, token: trio.lowlevel.TrioToken, scope: trio.CancelScope) -> None:
        """Have trio's run wake the job; in any thread."""
        self._begin()
        token.run_sync_soon(self._wake_in_trio, scope)

    def is_old(self) -> bool:
        """Say whether something holds up the event loop: it had the time."""
        since_s = self._since_s
        return since_s is not None and time.monotonic() - since_s >= BLOCKED_S

    def _begin(self) -> None:
        if self._since_s is None:  # An earlier wish stays as old as it is.
            self._since_s = time.monotonic()

    def _wake(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        task.cancel()
        # Its next step may come behind a call that holds up the loop; this comes behind that step.
        loop.call_later(BLOCKED_S / 2, self._forget)

    def _wake_in_trio(self, scope: trio.CancelScope) -> None:
        self._forget()
        scope.cancel()

    def _forget(self) -> None:
        self._since_s = None


class RunningJob:
    """One job from its first step to its end."""

    def __init__(self, context: JobContext, stepping: Stepping) -> None:
        """Run in this thread; ``stepping`` is the thread's."""
        self.context = context
        self.thread_ident = threading.get_ident()
        self.reply: Reply | None = None
        """Set by the job's code at its end, before anything can interrupt it."""
        self.is_ended = False
        self.interrupted_s = float("-inf")
        """When an interrupt was last raised in it."""
        self.cancel: Callable[[], None] | None = None
        """Wake the job where it awaits; may be called in any thread."""
        self._stepping = stepping
        self._outer: RunningJob | None = None
        self._is_stepping = False
        self._is_interrupted = False
        self._wish = Wish()
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
            # Not by `self`: who refers to himself waits for the garbage collection.
            self.cancel = partial(self._wish.ask, loop, task)

    def _attach_to_trio(self) -> None:
        import trio  # noqa: PLC0415  (an optional dependency; this is its thread)

        token = trio.lowlevel.current_trio_token()
        scope = self.scope = trio.CancelScope()
        self.cancel = partial(self._wish.ask_trio, token, scope)

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
        is_old = self._wish.is_old()
        self._is_interrupted = True
        self.interrupted_s = time.monotonic()
        if self.cancel is not None and not self.is_ended:
            self.cancel()
        return not is_old

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
            self.interrupted_s = time.monotonic()
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


def interrupt_call(future: Future[Any]) -> None:
    """Raise KeyboardInterrupt in a call of another thread's Caller, if its code runs."""
    if future.executing and future.ident is not None:
        _set_async_exc(future.ident, KeyboardInterrupt)


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
