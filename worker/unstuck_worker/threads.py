"""Where jobs run that are not the main thread's: Caller threads, subshells, a pool for questions.

Threads: `Threads.run` and the subshell methods are called in the lane thread, and never block.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import msgspec

from unstuck.jobcontext import JobContext
from unstuck.runmode import read_directive
from unstuck.typing import MsgType, RunMode
from unstuck_worker.content import encode_user
from unstuck_worker.execute import describe_error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from contextvars import Context

    from unstuck.caller import Caller
    from unstuck.protocol import Run
    from unstuck_worker.runner import Runner

POOL_THREADS = 4
IDLE_S = 600.0


class Pool:
    """A few daemon threads for completions: one that hangs must not hold up the end."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._idle = 0
        self._count = 0
        self._lock = threading.Lock()

    def submit(self, call: Callable[[], object]) -> None:
        """Call in a thread of the pool."""
        self._calls.put(call)
        with self._lock:
            if self._idle >= self._calls.qsize() or self._count >= POOL_THREADS:
                return
            self._count += 1
        threading.Thread(target=self._work, name="unstuck-introspect", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                call = self._calls.get(timeout=IDLE_S)
            except queue.Empty:
                continue
            finally:
                with self._lock:
                    self._idle -= 1
            call()


class Subshell:
    """One subshell: a Caller thread that runs its jobs in order, in one context."""

    def __init__(self, caller: Caller, runner: Runner, context: Context) -> None:
        """Run in the thread of ``caller``; variables of ``context`` last from cell to cell."""
        self._caller = caller
        self._runner = runner
        self._context = context
        self._waiting: deque[JobContext] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    def put(self, job: JobContext) -> None:
        """Run a job after those before it."""
        self._waiting.append(job)
        self._caller.call_direct(self._start_next)

    def close(self) -> None:
        """End the thread once its job has ended."""
        self._is_closing = True
        self._caller.call_direct(self._start_next)

    def _start_next(self) -> None:
        import asyncio  # noqa: PLC0415  (loaded long before; here for the type checkers' sake)

        if self._task is not None and not self._task.done():
            return
        if self._waiting:
            job = self._waiting.popleft()
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._runner.run(job), context=self._context)
            self._task.add_done_callback(lambda _task: self._start_next())
        elif self._is_closing:
            self._caller.stop(force=True)


class Threads:
    """Hand jobs to threads."""

    def __init__(self, runner: Runner, queue_context: Context) -> None:
        """Run with ``runner``; jobs see the context variables that queue cells have set."""
        self._runner = runner
        self._queue_context = queue_context
        self._pool = Pool()
        self._subshells: dict[str, Subshell] = {}
        self.before_cell: Callable[[JobContext], None] = lambda _job: None
        """Called in the lane thread before a cell is handed to its thread."""

    def run(self, run: Run) -> None:
        """Start a job."""
        job = JobContext.of(run)
        try:
            if run.kind is MsgType.execute_request and run.mode is not RunMode.process:
                self.before_cell(job)
            if run.subshell is not None:
                self._subshell(run.subshell).put(job)
            elif run.mode is RunMode.process:
                self._start_process(job)
            elif run.kind is MsgType.execute_request:
                self._queue_context.copy().run(self._start_cell, job)
            else:
                self._pool.submit(lambda: self._runner.serve_now(job))
        except Exception as error:  # noqa: BLE001  (a backend that is not there, no thread to be had)
            self._refuse(job, error)

    def _refuse(self, job: JobContext, error: Exception) -> None:
        """Answer a job that has no thread; frontends show what is published under its cell."""
        if job.kind is MsgType.execute_request:
            text = f"{type(error).__name__}: {error}"
            content = {"ename": type(error).__name__, "evalue": str(error), "traceback": [text]}
            self._runner.shell.lane.publish(job, "error", encode_user(content))
        self._runner.end(self._runner.interrupts.start(job), describe_error(error))

    def _start_process(self, job: JobContext) -> None:
        from unstuck_worker.processes.attendant import attend  # noqa: PLC0415  (cloudpickle)

        threading.Thread(
            target=attend, args=(self._runner, job), name="unstuck-process", daemon=True
        ).start()

    def _start_cell(self, job: JobContext) -> None:
        from unstuck.caller import Caller  # noqa: PLC0415  (it loads anyio)

        options = self._options(job)
        if not options:
            Caller.to_thread(self._runner.run, job)
            return
        caller = Caller.get(**cast("Any", options))
        caller.call_soon(self._runner.run, job)

    def _options(self, job: JobContext) -> dict[str, str]:
        """Read the options of ``##thread`` on the first line of the cell."""
        code: Any = msgspec.json.decode(job.content).get("code", "")
        allow_hash = bool(self._runner.shell.kernel.settings.get("hash_directive", False))
        directive = read_directive(code, allow_hash=allow_hash) if isinstance(code, str) else None
        return directive.options if directive else {}

    def _subshell(self, name: str) -> Subshell:
        subshell = self._subshells.get(name)
        if subshell is None:
            # The broker knows which subshells there are; this worker is younger than this one.
            self.open_subshell(name)
            subshell = self._subshells[name]
        return subshell

    def revive(self) -> None:
        """Start threads anew where they are needed: a fork has taken none along."""
        self._pool = Pool()
        self._subshells.clear()

    def open_subshell(self, name: str) -> None:
        """Start a subshell's thread."""
        from unstuck.caller import Caller  # noqa: PLC0415  (it loads anyio)

        caller = Caller.start_new(name=f"subshell-{name}", backend="asyncio", protected=True)
        self._subshells[name] = Subshell(caller, self._runner, self._queue_context.copy())

    def close_subshell(self, name: str) -> None:
        """End a subshell's thread once its job has ended."""
        subshell = self._subshells.pop(name, None)
        if subshell is not None:
            subshell.close()

    def list_subshells(self) -> Iterable[str]:
        """Give the ids of the open subshells."""
        return tuple(self._subshells)
