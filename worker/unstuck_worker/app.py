"""The worker's main thread: runs the event loop, starts the main lane's jobs.

Threads: `App` is the main thread's; `count_step` and `stop` are called in the lane thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from contextvars import copy_context
from time import sleep  # A user may replace that of the module.
from typing import TYPE_CHECKING

import IPython

from unstuck.caller import Caller
from unstuck.codec import Decoder
from unstuck.errors import WireError
from unstuck.jobcontext import JobContext
from unstuck.protocol import ControlParent, Ready, Receive, Run, ToWorker
from unstuck.typing import MsgType, RunMode
from unstuck_worker import pdbhook, process, turns
from unstuck_worker.autosave import Autosave
from unstuck_worker.child import protect_children
from unstuck_worker.context import carry_job_into_threads
from unstuck_worker.interrupt import Interrupts
from unstuck_worker.lanethread import LaneThread
from unstuck_worker.pipes import write_all
from unstuck_worker.runner import Runner
from unstuck_worker.snapshots.inheritance import take_over
from unstuck_worker.snapshots.revival import revive_callers, revive_loop
from unstuck_worker.threads import Threads
from unstuck_worker.tray import Tray

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from unstuck.protocol import Promote, Start
    from unstuck_worker.farewell import Farewell
    from unstuck_worker.interpreter import Interpreter
    from unstuck_worker.lane import OutputLane
    from unstuck_worker.snapshots.keeper import Snapshots

log = logging.getLogger("unstuck.worker")

READ_BYTES = 1 << 18
TURNS_IN_VAIN = 3
"""So often in a row the event loop may fail before it calls anything: then it is broken."""


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
        ends: list[int],
    ) -> None:
        """Build what serves the interpreter's shell, and run the profile's start-up code.

        Args:
            interpreter: the shell and its streams.
            start: what the broker says at first.
            lane: the output lane.
            farewell: the last exit handler.
            main_sock: the main lane.
            thread_sock: the thread lane.
            ends: the worker's descriptors: 1, 2, main, thread and output lane, page, stacks, tray.
        """
        self._lane = lane
        self._tray = Tray(ends[7])
        self._farewell = farewell
        farewell.shell = interpreter.shell
        farewell.close_loop = self._close_loop
        self._sock = main_sock
        self._thread_sock = thread_sock
        self._ends = ends
        self._promotions = 0
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = 0
        self._steps = 0
        self._is_step_due = False
        self._is_stopping = False
        self._grace_s = 0.0
        self._queue_context = copy_context()
        self._interrupts = Interrupts(lane, self._loop)
        self.shell = shell = interpreter.shell
        self._flood = interpreter.flood
        self._inputs = interpreter.inputs
        shell.counter = start.execution_count
        shell.history.open()
        self._interrupts.withdraw_input = self._inputs.withdraw
        self._runner = Runner(shell, lane, self._interrupts, start.session)
        self._runner.take_next = self._tray.take
        self._threads = Threads(self._runner, self._queue_context)
        shell.kernel.list_subshells = self._threads.list_subshells
        carry_job_into_threads()
        pdbhook.install()
        become_child = protect_children(
            lane,
            interpreter.flood,
            interpreter.streams,
            self._runner,
            [main_sock, thread_sock, *self._tray.socks],
        )
        self._snapshots = self._watch_for_snapshots(start, become_child)
        is_idle = self._interrupts.is_idle
        self._autosave = Autosave(shell, self._loop, is_idle, restores=start.is_first)
        interpreter.profile.start(shell)
        # Once: its tip is drawn at random, and a promoted copy must not change a user's stream.
        self._banner = shell.banner

    def _watch_for_snapshots(
        self, start: Start, become_child: Callable[[], None]
    ) -> Snapshots | None:
        if not start.copies_address:
            return None
        from unstuck_worker.snapshots.keeper import Snapshots  # noqa: PLC0415  (Linux only)
        from unstuck_worker.snapshots.site import Site  # noqa: PLC0415

        site = Site(
            address=start.copies_address,
            ends=self._ends,
            shell=self.shell,
            lane=self._lane,
            loop=self._loop,
            interrupts=self._interrupts,
            tasks=self._tasks,
            become_child=become_child,
            take_place=self._take_place,
            announce=self._announce,
            hear=self._start_lane_thread,
        )
        snapshots = Snapshots(site, start.snapshot_floor)
        self.shell.kernel.snapshots = snapshots
        self._runner.note_thread_cell = snapshots.note_thread_job
        self._threads.before_cell = snapshots.before_thread_cell
        return snapshots

    def _start_lane_thread(self) -> None:
        LaneThread(
            self._thread_sock,
            self._lane,
            self._ends[5],
            threads=self._threads,
            interrupts=self._interrupts,
            inputs=self._inputs,
            count_step=self.count_step,
            stop=self.stop,
        ).start()

    def run(self, decoder: Decoder[ToWorker], early: list[ToWorker]) -> None:
        """Serve until the broker says stop."""
        # Not earlier: an interrupt during the start has nothing to interrupt.
        self._interrupts.install()
        self._start_lane_thread()
        self._decoder = decoder
        self._loop.add_reader(self._sock, self._read)
        self._sock.setblocking(False)
        self._inherit(decoder, early)
        self._announce()
        self._autosave.begin()
        for message in early:
            self._handle(message)
        self._run_loop()
        process.outlive_parent()
        self._farewell.is_wanted = True
        sys.exit(0)

    def _run_loop(self) -> None:
        """Run the event loop until the end, whatever a cell does to it."""
        serving: asyncio.Task[None] | None = None
        in_vain = 0
        while not self._is_stopping:
            turns = self._turns
            try:
                self._loop.call_soon(self._take_turn)
                if serving is None or serving.done():
                    serving = self._loop.create_task(self._serve())
                self._loop.run_until_complete(serving)
            except BaseException as error:  # noqa: BLE001  (a user's callback ended the loop's turn)
                if self._turns != turns:
                    in_vain = 0
                    self._report(error)
                    continue
                in_vain += 1
                if in_vain == TURNS_IN_VAIN:
                    self._lane.flush()
                    write_all(2, f"the event loop cannot run any more: {error!r}\n".encode())
                    os._exit(1)

    def _take_turn(self) -> None:
        self._turns += 1

    def _close_loop(self) -> None:
        """Let go of tasks that nobody waits for; their ``finally`` blocks run."""
        with suppress(RuntimeError):  # A handler of the user runs it again.
            self._loop.close()

    def _inherit(self, decoder: Decoder[ToWorker], early: list[ToWorker]) -> None:
        """Take over a donor's variables if the broker has said so right behind its `Start`."""
        with suppress(BlockingIOError):
            early += decoder.feed(self._sock.recv(READ_BYTES))
        for order in [message for message in early if isinstance(message, Receive)]:
            early.remove(order)
            take_over(order, self.shell, self._lane)
            if order.name and self._snapshots is not None:
                self._snapshots.request(order.name)

    def _announce(self) -> None:
        self._lane.send(Ready(os.getpid(), self._banner, IPython.__version__))

    async def _serve(self) -> None:
        async with Caller(create=True, protected=True) as caller:
            if self._snapshots is not None:
                self._snapshots.start()
            while not (self._is_stopping or caller.stopped):
                try:
                    await self._stopped.wait()
                except asyncio.CancelledError:
                    # A cell that cancels all tasks means its own.
                    task = asyncio.current_task()
                    assert task is not None
                    task.uncancel()
            if self._is_stopping and self._tasks:
                # What a cell awaits in its ``finally`` needs the loop.
                await asyncio.wait(self._tasks, timeout=self._grace_s / 2)

    def _report(self, error: BaseException) -> None:
        """Tell about an exception that passed the event loop; the loop goes on."""
        is_expected = isinstance(error, KeyboardInterrupt | RuntimeError) or self._is_stopping
        if not is_expected:
            traceback.print_exception(error)

    def _read(self) -> None:
        """Take in what came on the main lane."""
        self._steps += 1
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        promotions = self._promotions
        try:
            for message in self._decoder.feed(data):
                self._handle(message)
                if self._promotions != promotions:
                    return  # What follows was said to the worker that this one replaces.
        except WireError:
            log.exception("event=main_lane_broken")
            data = b""
        if not data:
            self._loop.remove_reader(self._sock)
            if not self._is_stopping:  # Else ``finally`` blocks go on without the broker.
                self._lane.flush()
                os._exit(1)

    def _handle(self, message: ToWorker) -> None:
        if isinstance(message, ControlParent):
            self.shell.kernel.take_control_parent(message)
            return
        if not isinstance(message, Run):
            raise WireError(f"{type(message).__name__} came on the main lane")
        job = JobContext.of(message)
        is_cell = job.kind is MsgType.execute_request
        is_queued = is_cell and job.mode is not RunMode.task
        snapshots = self._snapshots
        if snapshots is not None and is_cell:
            take_due = snapshots.before_cell if is_queued else snapshots.before_other_cell
            try:
                if take_due(job):
                    return
            except Exception:
                # A cell may have broken what is looked at: the next one has to be answered.
                log.exception("event=before_cell job=%d", job.job)
        context = self._queue_context if is_queued else self._queue_context.copy()
        running = self._runner.run(job, self._interrupts.main)
        task = self._loop.create_task(running, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if snapshots is not None:
            task.add_done_callback(snapshots.cell_ended if is_queued else snapshots.job_ended)
        if is_queued:
            task.add_done_callback(self._go_on)

    def _go_on(self, _task: object) -> None:
        """Start the cell that was taken from the tray, behind what came on the lane before it."""
        run = self._tray.next()
        if run is not None and not self._is_stopping:
            self._read()
            self._handle(run)

    def _take_place(self, order: Promote) -> None:
        """Be the worker, in a copy whose descriptors are in place."""
        self._promotions += 1
        self._farewell.keeps_objects = True
        self._steps += 1
        self._is_step_due = False
        self._lane.revive(self._ends[5])
        self._interrupts.revive()
        self._inputs.revive()
        self._flood.forget_thread()
        self._threads.revive()
        self._runner.forget_spawns()
        for task in self._tasks:
            task.cancel()
        revive_loop(self._loop)
        self._loop.remove_reader(self._sock)
        self._tray.forget()
        self._decoder = Decoder(ToWorker)
        self._loop.add_reader(self._sock, self._read)
        self._sock.setblocking(False)
        revive_callers()
        turns.revive()
        self.shell.revive(order.cell_floor + 1)
        settings = self.shell.kernel.settings
        settings.update({name: value for name, value in order.settings.items() if name in settings})

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
        self._is_stopping, self._grace_s = True, grace_s
        self._lane.outlives_broker = True
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._interrupts.interrupt_all(grace_s)


def _exit_after(grace_s: float) -> None:
    sleep(grace_s)
    os._exit(0)
