"""Interrupts: a KeyboardInterrupt in the job that is meant, and nowhere else.

Threads: `on_signal` runs in the main thread at any bytecode, `interrupt` in the lane thread. The
handler raises in the job that the main thread steps; a job that awaits is woken by a cancellation.
"""

from __future__ import annotations

import inspect
import signal
import threading
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING

from unstuck.scheduler import CALL_CODES
from unstuck.typing import MsgType, RunMode
from unstuck_worker import process
from unstuck_worker.job import RunningJob, Stepping
from unstuck_worker.signals import Signals
from unstuck_worker.wakeups import Wakeups

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from types import FrameType

    from unstuck.jobcontext import JobContext
    from unstuck_worker.lane import OutputLane

_OUR_PACKAGE = __name__.partition(".")[0]
_OURS = {_OUR_PACKAGE, "unstuck", "asyncio"}
RESPITE_S = 1.0
"""At the end of the process, so long after an interrupt a cell is taken to be in ``finally``."""


class Interrupts:
    """All running jobs, and the ways to interrupt them."""

    def __init__(self, lane: OutputLane, loop: asyncio.AbstractEventLoop) -> None:
        """Interrupt jobs of ``loop``, the main thread's, and of other threads."""
        self._lane = lane
        self._loop = loop
        self._main_ident = threading.main_thread().ident
        self._jobs: dict[int, RunningJob] = {}
        self._queue_job: RunningJob | None = None
        self._aimed: set[int] = set()
        self._signals = Signals(self.on_signal)
        self.wakeups = Wakeups(self._signals, self._wake_loop)
        self.main = Stepping()
        self.is_stopping = False
        self._respite_s = RESPITE_S
        self._spared: set[int] = set()
        """Jobs that `interrupt_all` has left alone."""
        self.withdraw_input: Callable[[int], bool] = lambda _job: False
        """Interrupt a job that waits for input; says whether it did."""

    def install(self) -> None:
        """Handle SIGINT; main thread only."""
        self._lane.after_write = self._deliver_late
        self.wakeups.install()

    def start(self, context: JobContext, stepping: Stepping | None = None) -> RunningJob:
        """Take in a job that starts in this thread."""
        running = RunningJob(context, stepping or Stepping())
        self._jobs[context.job] = running
        if stepping is self.main and _is_queue_cell(context):
            self._queue_job = running
            # What a cell has done to SIGINT ends with it: the next one can be interrupted.
            self._signals.handle_interrupts()
        return running

    def is_queue_job(self, running: RunningJob) -> bool:
        """Say whether this is the main queue's cell."""
        return running is self._queue_job

    def forget(self, running: RunningJob) -> None:
        """Let go of a job whose end is out."""
        self._jobs.pop(running.context.job, None)
        if self._queue_job is running:
            self._queue_job = None

    def is_in_main(self, running: RunningJob) -> bool:
        """Say whether a job runs in the main thread."""
        return running.thread_ident == self._main_ident

    def is_main_busy(self) -> bool:
        """Say whether a cell of the queue runs, or code of any job in the main thread."""
        return self._queue_job is not None or self.main.job is not None

    def is_idle(self) -> bool:
        """Say whether no job runs."""
        return not self._jobs

    def beside(self) -> list[str]:
        """Name the cells that run beside the queue."""
        running = [job for job in self._jobs.values() if not job.is_ended]
        return [
            f"the {job.context.mode} cell that runs" for job in running if _is_cell(job.context)
        ]

    def revive(self) -> None:
        """Forget all jobs, in a copy that is the worker now; main thread only."""
        for running in self._jobs.values():
            # Their requests were answered by the broker.
            running.context.finished = True
            running.is_ended = True
        self._jobs.clear()
        self._aimed.clear()
        self._queue_job = None
        self.main.job = None
        self.wakeups.revive()
        self.install()

    def on_signal(self, _number: int, frame: FrameType | None) -> None:
        """Handle SIGINT: raise in the job that is meant, or wake it."""
        self.wakeups.take()
        if self.is_stopping:
            # Only the main thread can take this back; the broker may be gone before our end.
            process.outlive_parent()
        if self._lane.holder == self._main_ident:
            # Inside a write: `after_write` comes back to it.
            self._lane.interrupted = True
            return
        self._deliver(frame)

    def _wake_loop(self) -> None:
        self._loop.call_soon_threadsafe(_checkpoint)

    def _deliver_late(self) -> None:
        if get_ident() == self._main_ident:
            self._lane.interrupted = False
            self._deliver(inspect.currentframe())

    def _deliver(self, frame: FrameType | None) -> None:
        aimed, self._aimed = self._aimed, set()
        targets = self._aimed_jobs(aimed) if aimed else self._default_jobs()
        raises = not aimed and not targets and self._queue_job is None and _is_foreign(frame)
        for running in targets:
            if self._spares(running):
                continue
            if running.is_stepping_in(self.main):
                running.interrupted_s = monotonic()
                raises = True
            elif running.thread_ident == self._main_ident:
                if not running.interrupt_wait():
                    # What holds up the event loop is a call or callback: nothing else wakes it.
                    raises |= _is_foreign(frame)
            else:
                self._loop.call_soon_threadsafe(self._interrupt_elsewhere, running)
        if raises:
            raise KeyboardInterrupt

    def _aimed_jobs(self, jobs: Iterable[int]) -> list[RunningJob]:
        return [self._jobs[job] for job in jobs if job in self._jobs]

    def _default_jobs(self) -> list[RunningJob]:
        """Name the queue's cell; with none, every other cell and handler that runs."""
        queue_job = self._queue_job
        if queue_job is None:
            return [running for running in self._jobs.values() if not running.is_ended]
        return [] if queue_job.is_ended else [queue_job]

    def interrupt(self, jobs: Iterable[int], *, hard: bool) -> None:
        """Interrupt exactly these jobs; called in the lane thread."""
        for running in self._aimed_jobs(jobs):
            if running.thread_ident != self._main_ident:
                if not self._spares(running):
                    self._interrupt_elsewhere(running)
            elif hard:
                self._interrupt_main_hard(running)
            else:
                self._signal(running)

    def _signal(self, running: RunningJob) -> None:
        """Have the main thread interrupt exactly this job."""
        self._aimed.add(running.context.job)
        signal.pthread_kill(self._main_ident or 0, signal.SIGINT)

    def interrupt_all(self, grace_s: float) -> None:
        """Interrupt whatever runs, as this process is to end; called in the lane thread.

        Frontends interrupt and ask for the shutdown right behind: a second interrupt would cut the
        ``finally`` blocks short that the first one has begun. It comes after half of the grace.

        Args:
            grace_s: how long this process still has.
        """
        self._respite_s = min(RESPITE_S, grace_s / 2)
        self.is_stopping = True
        # The main thread is signalled in any case: `on_signal` says why.
        self.interrupt(list(self._jobs), hard=False)
        again = threading.Timer(grace_s / 2, self._interrupt_spared)
        again.daemon = True
        again.start()

    def _interrupt_spared(self) -> None:
        self.interrupt(list(self._spared), hard=False)

    def _spares(self, running: RunningJob) -> bool:
        """Say whether a job is left alone for a while, since its interrupt has just come."""
        if not self.is_stopping or monotonic() - running.interrupted_s > self._respite_s:
            return False
        self._spared.add(running.context.job)
        return True

    def _interrupt_elsewhere(self, running: RunningJob) -> None:
        if self.withdraw_input(running.context.job):
            return
        raised: list[bool] = []
        self._lane.while_nobody_writes(lambda: raised.append(running.interrupt_thread()))
        if not raised[0] and not running.interrupt_wait():
            self._lane.while_nobody_writes(running.interrupt_blocker)

    def _interrupt_main_hard(self, running: RunningJob) -> None:
        """Raise in the main thread past any signal handler; what blocks it is meant, too."""
        if self.withdraw_input(running.context.job):
            return
        stuck = self.main.job or running
        raised: list[bool] = []
        self._lane.while_nobody_writes(lambda: raised.append(stuck.interrupt_thread()))
        if stuck is running and raised[0]:
            return
        if not running.interrupt_wait() and not _is_queue_cell(running.context):
            # The broker signals again for a cell of the queue, and for no other job.
            self._signal(running)


def _checkpoint() -> None:
    """Do nothing; the call lets the interpreter handle what signals have come."""


def _is_cell(context: JobContext) -> bool:
    return context.kind is MsgType.execute_request


def _is_queue_cell(context: JobContext) -> bool:
    # In the worker of a ``##process`` cell, that cell is the queue.
    modes = (RunMode.queue, RunMode.blocking, RunMode.process)
    return _is_cell(context) and context.mode in modes


def _is_foreign(frame: FrameType | None) -> bool:
    """Say whether the event loop runs a callback of the user's own, and not a job."""
    packages: list[str] = []
    if frame is not None and frame.f_code in CALL_CODES:
        return True
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == "asyncio" and frame.f_code.co_name == "_run":
            # What it called comes last. A Caller's calls are the user's, too.
            return packages[-1:] != [_OUR_PACKAGE] and not _OURS.issuperset(packages)
        packages.append(package)
        frame = frame.f_back
    return False
