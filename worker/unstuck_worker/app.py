"""The worker's main thread: runs the event loop, starts the main lane's jobs.

Threads: `App` is the main thread's; `count_step` and `stop` are called in the lane thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING

import IPython

from unstuck.caller import Caller
from unstuck.errors import WireError
from unstuck.jobcontext import JobContext
from unstuck.protocol import Ready, Run, ToWorker
from unstuck.typing import MsgType, RunMode
from unstuck_worker import pdbhook, process
from unstuck_worker.child import protect_children
from unstuck_worker.context import carry_job_into_threads
from unstuck_worker.interrupt import Interrupts
from unstuck_worker.lanethread import LaneThread
from unstuck_worker.runner import Runner
from unstuck_worker.threads import Threads

if TYPE_CHECKING:
    import socket

    from unstuck.codec import Decoder
    from unstuck.protocol import Start
    from unstuck_worker.farewell import Farewell
    from unstuck_worker.interpreter import Interpreter
    from unstuck_worker.lane import OutputLane

log = logging.getLogger("unstuck.worker")

READ_BYTES = 1 << 18


class App:
    """Everything that the process has one of, beside the interpreter."""

    def __init__(
        self,
        interpreter: Interpreter,
        start: Start,
        lane: OutputLane,
        farewell: Farewell,
        main_sock: socket.socket,
        thread_sock: socket.socket,
    ) -> None:
        """Build what serves the interpreter's shell, and run the profile's start-up code."""
        self._lane = lane
        self._farewell = farewell
        farewell.shell = interpreter.shell
        farewell.close_loop = self._close_loop
        self._sock = main_sock
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._steps = 0
        self._is_step_due = False
        self._is_stopping = False
        self._queue_context = copy_context()
        self._interrupts = Interrupts(lane, self._loop)
        self.shell = shell = interpreter.shell
        shell.counter = start.execution_count
        shell.history.open()
        self._interrupts.withdraw_input = interpreter.inputs.withdraw
        self._runner = Runner(shell, lane, self._interrupts, start.session)
        self._threads = Threads(self._runner, self._queue_context)
        shell.kernel.list_subshells = self._threads.list_subshells
        self._lane_thread = LaneThread(
            thread_sock,
            lane,
            threads=self._threads,
            interrupts=self._interrupts,
            inputs=interpreter.inputs,
            count_step=self.count_step,
            stop=self.stop,
        )
        carry_job_into_threads()
        pdbhook.install()
        sockets = [main_sock, thread_sock]
        protect_children(lane, interpreter.flood, interpreter.streams, self._runner, sockets)
        interpreter.profile.start(shell)

    def run(self, decoder: Decoder[ToWorker], early: list[ToWorker]) -> None:
        """Serve until the broker says stop."""
        # Not earlier: an interrupt during the start has nothing to interrupt.
        self._interrupts.install()
        self._lane_thread.start()
        self._loop.add_reader(self._sock, self._read, decoder)
        self._sock.setblocking(False)
        self._lane.send(Ready(os.getpid(), self.shell.banner, IPython.__version__))
        for message in early:
            self._handle(message)
        serving = self._loop.create_task(self._serve())
        while not self._is_stopping:
            try:
                self._loop.run_until_complete(serving)
            except BaseException as error:  # noqa: BLE001  (a user's callback ended the loop's turn)
                self._report(error)
        process.outlive_parent()
        self._farewell.is_wanted = True
        sys.exit(0)

    def _close_loop(self) -> None:
        """Let go of tasks that nobody waits for; their ``finally`` blocks run."""
        with suppress(RuntimeError):  # A handler of the user runs it again.
            self._loop.close()

    async def _serve(self) -> None:
        async with Caller(create=True, protected=True):
            while not self._is_stopping:
                await self._stopped.wait()

    def _report(self, error: BaseException) -> None:
        """Tell about an exception that passed the event loop; the loop goes on."""
        is_expected = isinstance(error, KeyboardInterrupt | RuntimeError) or self._is_stopping
        if not is_expected:
            traceback.print_exception(error)

    def _read(self, decoder: Decoder[ToWorker]) -> None:
        """Take in what came on the main lane."""
        self._steps += 1
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        try:
            for message in decoder.feed(data):
                self._handle(message)
        except WireError:
            log.exception("event=main_lane_broken")
            data = b""
        if not data:
            self._loop.remove_reader(self._sock)
            if not self._is_stopping:  # Else ``finally`` blocks go on without the broker.
                self._lane.flush()
                os._exit(1)

    def _handle(self, message: ToWorker) -> None:
        if not isinstance(message, Run):
            raise WireError(f"{type(message).__name__} came on the main lane")
        job = JobContext.of(message)
        is_queued = job.kind is MsgType.execute_request and job.mode is not RunMode.task
        context = self._queue_context if is_queued else self._queue_context.copy()
        running = self._runner.run(job, self._interrupts.main)
        task = self._loop.create_task(running, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def count_step(self) -> int:
        """Give the count of the main loop's steps, and ask the loop for another one."""
        if not self._is_step_due:
            self._is_step_due = True
            self._loop.call_soon_threadsafe(self._step)
        return self._steps

    def _step(self) -> None:
        self._is_step_due = False
        self._steps += 1

    def stop(self, grace_s: float) -> None:
        """End the process: interrupt what runs, then run exit handlers, for ``grace_s`` at most."""
        threading.Thread(
            target=_exit_after, args=(grace_s,), name="unstuck-exit", daemon=True
        ).start()
        self._is_stopping = True
        self._lane.outlives_broker = True
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._interrupts.interrupt_all()


def _exit_after(grace_s: float) -> None:
    time.sleep(grace_s)
    os._exit(0)
