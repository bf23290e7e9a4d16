"""The worker process from start to end: what the core orders is done, what happens is told.

Threads: the broker's loop only. Nothing here decides what a death means: it becomes an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from unstuck.codec import encode
from unstuck.protocol import (
    NewPipes,
    Ping,
    Pong,
    Promote,
    Ready,
    Run,
    Snapshotted,
    Start,
    Stop,
    StreamName,
    ToBroker,
    ToWorker,
)
from unstuck.stack import STACK_SIGNAL
from unstuck_broker import tree
from unstuck_broker.actions import Lane
from unstuck_broker.deathwatch import DeathWatch
from unstuck_broker.dormant import DONATION_S, PROMOTION_S
from unstuck_broker.events import Event, FromWorker, PipeText, StackTaken, Ticked, WorkerExited
from unstuck_broker.lane import LaneReader, LaneWriter
from unstuck_broker.pipes import Pipes
from unstuck_broker.process import WorkerProcess, exit_facts, kill_all, watch_fd
from unstuck_broker.reason import STOP, Reason, Why
from unstuck_broker.stacks import Stacks
from unstuck_broker.undertaker import leave_to_undertaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.config import Config
    from unstuck_broker.dormant import Dormant
    from unstuck_broker.pace import Precedence
    from unstuck_broker.template import Template

_EOF_GRACE_S = 0.2
"""A dying process closes its lanes a moment before its exit can be seen."""
_NO_PIDFD_POLL_S = 0.05
_DYING_LOOK_S = 0.0005
_DYING_LOOKS = 20
"""A thread that was in a system call takes a moment to hear that its process is killed."""
_STOP_PONG_S = 0.3
"""A worker whose GIL is held cannot run ``finally`` blocks: it is killed after this."""
_LANE_SLICES = 8
"""More than a socket holds."""
_REAP_S = 0.1
_KILL_STACK = -2
"""The number of the stack that is taken before a kill."""
_NOBODY = -1
_KILL_ROUNDS = 5
"""A tree that forks while it is killed is looked at again."""


class Emit(Protocol):
    """Gets what happens; ``more`` says that the next event follows at once."""

    def __call__(self, event: Event, *, more: bool = False) -> None: ...


class Supervisor:
    """Owns the one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        emit: Emit,
        template: Template,
        start_message: Callable[[], Start],
        dormant: Dormant,
        precedence: Precedence,
    ) -> None:
        """Supervise for a core.

        Args:
            loop: the broker's.
            config: deadlines.
            emit: gets each event.
            template: where workers come from.
            start_message: makes the first message of a worker.
            dormant: the copies of the worker.
            precedence: what goes before a flood of outputs.
        """
        self._loop = loop
        self._config = config
        self._emit = emit
        self._template = template
        self._start_message = start_message
        self._dormant = dormant
        self._precedence = precedence
        self._process: WorkerProcess | None = None
        self._next: asyncio.Task[WorkerProcess] | None = None
        """Brings up the next worker while the one before it ends."""
        self._timers: list[asyncio.TimerHandle] = []
        self._exit_fd: int | None = None
        self._reason: Reason | None = None
        self._final_stack = ""
        """Taken right before a kill."""
        self._stop_pings = 0
        self._has_lent = False
        """What was put into the tray may lie there."""
        self.paused = False
        self.exited = asyncio.Event()
        self._reap_timer: asyncio.TimerHandle | None = None
        loop.add_signal_handler(signal.SIGCHLD, self._on_child)

    # --- start ------------------------------------------------------------------------------------

    def attach(
        self, process: WorkerProcess, *, start: Start | None = None, donor: int | None = None
    ) -> None:
        """Take a worker into service that was just started, or promoted.

        Args:
            process: the worker.
            start: what it has still to be told.
            donor: the copy that it takes its variables over from.
        """
        loop = self._loop
        self._process = process
        self._reason = None
        self._final_stack = ""
        self._has_lent = False
        self.exited.clear()
        self._main = LaneWriter(process.main_lane, loop)
        self._thread = LaneWriter(process.thread_lane, loop)
        self._output = LaneReader(
            process.output_lane, loop, self._hear, self._lane_broken, self._precedence
        )
        fds = (process.stdout_fd, process.stderr_fd)
        self._pipes = Pipes(
            loop, fds, process.sync_fd, self._take_text, self._read_lane, self._precedence
        )
        self._stacks = Stacks(loop, process.stack_fd, self._take_stacks)
        if self.paused:
            self.pause()
        self._death_watch = DeathWatch(loop, process.sync_fd, partial(self._on_dying, process))
        self._exit_fd = watch_fd(process.pid)
        if self._exit_fd is not None:
            loop.add_reader(self._exit_fd, self._on_exit)
        else:
            self._later(_NO_PIDFD_POLL_S, self._poll_exit)
        if start is not None:
            self._main.send(msgspec.structs.replace(start, takes_over=donor is not None))
        deadline_s = self._config.start_deadline_s
        if donor is not None:
            self._main.send(self._dormant.donate(donor))
            deadline_s += DONATION_S
        self._start_timer = self._later(
            deadline_s,
            self.kill,
            Reason(Why.START, f"its shell was not there after {deadline_s:g} s"),
        )

    def spawn(self, delay_s: float, donor: int | None = None) -> None:
        """Start a worker after a delay; it takes over the variables of a ``donor``."""
        if delay_s:
            self._later(delay_s, self.spawn, 0.0, donor)
            return
        self._spawning = self._loop.create_task(self._spawn(donor))

    def promote(self, number: int, order: Promote) -> None:
        """Make a dormant copy the worker."""
        try:
            process = self._dormant.promote(number, order)
        except OSError as error:
            reason = Reason(Why.START, f"the copy could not become the worker: {error}")
            self._loop.call_soon(self._emit, WorkerExited(None, None, reason=reason))
            return
        self.attach(process)
        self._start_timer.cancel()
        reason = Reason(Why.START, f"the copy was not there after {PROMOTION_S:g} s")
        self._start_timer = self._later(PROMOTION_S, self.kill, reason)

    async def _prepare(self) -> WorkerProcess:
        """Start a worker that builds its shell while the last one runs its exit handlers."""
        start = self._start_message()
        process = await self._template.worker(start.settings)
        for chunk in encode(start):
            process.main_lane.send(chunk)
        return process

    async def _spawn(self, donor: int | None) -> None:
        prepared, self._next = self._next, None
        try:
            if prepared is not None:
                self.attach(await prepared)
            else:
                start = self._start_message()
                worker = await self._template.worker(start.settings)
                self.attach(worker, start=start, donor=donor)
        except OSError as error:
            reason = Reason(Why.START, f"no process could be started: {error}")
            self._emit(WorkerExited(None, None, reason=reason))

    # --- orders -----------------------------------------------------------------------------------

    def send(self, lane: Lane, message: ToWorker) -> None:
        """Write a message on a lane; without a worker it vanishes."""
        if self._process is not None:
            (self._main if lane is Lane.main else self._thread).send(message)

    def lend(self, run: Run) -> None:
        """Put a job into the tray, if there is room."""
        self._has_lent = False
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.tray[0].send(b"".join(encode(run)))
                self._has_lent = True

    def empty_tray(self) -> bool:
        """Take back what lies in the tray; False where the worker has taken it."""
        if self._process is None or not self._has_lent:
            return True
        try:
            self._process.tray[1].recv(1)
        except OSError:
            return False  # And so it stays until something else is lent.
        self._has_lent = False
        return True

    def interrupt(self, *, whole_tree: bool) -> None:
        """Send SIGINT to the worker's process group, as a terminal does, or to its whole tree."""
        process = self._process
        if process is None or process.reap():
            return
        pids = self._members() if whole_tree else set[int]()
        kill_all(pids - {process.pid}, signal.SIGINT)
        kill_all({-process.pid}, signal.SIGINT)  # The group; the worker leads it.
        # What was stopped takes its SIGINT only when it goes on.
        kill_all(pids, signal.SIGCONT)

    def kill(self, reason: Reason) -> None:
        """Kill the worker and all that it started."""
        if self._process is not None:
            self._reason = self._reason or reason
            if reason.why in (Why.INTERRUPT, Why.TIMEOUT):
                # Where the cell is goes into its reply; `_take_stacks` goes on.
                if self._stacks.order(_KILL_STACK):
                    self._process.signal(STACK_SIGNAL)
                return
            self._kill_tree()

    def _kill_tree(self) -> None:
        process = self._process
        if process is None or self._dormant.comes(lambda: self._kill_if(process)):
            return
        for _ in range(_KILL_ROUNDS):
            pids = self._members()
            kill_all(pids)
            if pids <= {process.pid}:
                break

    def _kill_if(self, process: WorkerProcess) -> None:
        if self._process is process:
            self._kill_tree()

    def stop(self, grace_s: float) -> None:
        """Let the worker end by itself; kill it after the grace, or soon where its GIL is held."""
        self.send(Lane.thread, Stop(grace_s))
        self._stop_pings += 1
        self.send(Lane.thread, Ping(-self._stop_pings))
        self._stop_timer = self._later(_STOP_PONG_S, self.kill, STOP)
        self._later(grace_s, self.kill, STOP)

    def leave(self) -> None:
        """Before the broker exits: what still lives is left to an undertaker."""
        process = self._process
        self._template.end()
        if process is not None and not process.reap():
            leave_to_undertaker(process.pid, self._members(), self._config.shutdown_grace_s)
            return
        strays = tree.members(tree.process_table(), os.getpid(), os.getpid(), frozenset())
        kill_all(strays - {os.getpid()})

    def restart(self, grace_s: float) -> None:
        """Stop the worker for the next one, which gets up meanwhile."""
        self.stop(grace_s)
        if self._next is None:
            self._next = self._loop.create_task(self._prepare())

    def take_stack(self, number: int) -> None:
        """Ask for the stacks of all threads; a `StackTaken` follows in any case, in time."""
        if self._process is None:
            self._emit(StackTaken("(there is no worker now)", (number,)))
        elif self._stacks.order(number):
            self._process.signal(STACK_SIGNAL)

    def pids(self) -> set[int]:
        """Name the processes of the worker's tree."""
        return set() if self._process is None else self._members()

    @property
    def pid(self) -> int | None:
        """Name the worker's process."""
        return None if self._process is None else self._process.pid

    @property
    def waiting_bytes(self) -> int:
        """Give the memory of messages that the worker has not taken."""
        if self._process is None:
            return 0
        return self._main.waiting_bytes + self._thread.waiting_bytes

    def pause(self) -> None:
        """Stop reading outputs: the worker blocks when it writes more."""
        self.paused = True
        if self._process is not None:
            self._output.pause()
            self._pipes.pause()

    def resume(self) -> None:
        """Go on reading outputs."""
        self.paused = False
        if self._process is not None:
            self._output.resume()
            self._pipes.resume()

    # --- what happens -----------------------------------------------------------------------------

    def _hear(self, message: ToBroker, more: bool) -> None:
        match message:
            case Ready() if self._reason is not None:
                self._emit(Ticked())  # It is being killed: no cell may start there.
                return
            case Ready():
                self._start_timer.cancel()
                self._template.prepare()
            case Pong(number) if number < 0:
                self._stop_timer.cancel()
            case Snapshotted(number):
                self._dormant.expect(number)
                self._death_watch.begin()
            case NewPipes(_job, parent_header):
                fds = self._output.take_fds()
                if fds is not None:
                    self._pipes.replace(fds, parent_header)
            case _:
                pass
        self._emit(FromWorker(message), more=more)

    def _read_lane(self) -> None:
        """Read what the worker has written before what a pipe holds: the end of a cell, also."""
        for _ in range(_LANE_SLICES):
            if not self._output.read_slice():
                return

    def _take_text(self, name: StreamName, text: str, parent: bytes | None) -> None:
        self._emit(PipeText(name, text, parent))

    def _take_stacks(self, stack: str, numbers: tuple[int, ...]) -> None:
        if _KILL_STACK in numbers:
            self._final_stack = stack
            self._kill_tree()
        self._emit(StackTaken(stack, numbers))

    def _lane_broken(self, reason: Reason) -> None:
        """Kill a worker that has closed its lane or written rubbish, unless it is just dying."""
        if self._process is not None and self._process.reap():
            return
        is_closed = reason.why is Why.LANE_CLOSED
        self._later(_EOF_GRACE_S if is_closed else 0.0, self.kill, reason)

    def _poll_exit(self) -> None:
        if self._process is not None and self._process.reap():
            self._on_exit()
        else:
            self._later(_NO_PIDFD_POLL_S, self._poll_exit)

    def _on_dying(self, process: WorkerProcess, looks: int = _DYING_LOOKS) -> None:
        """Go on with a copy while the system gives back the dead worker's memory."""
        if process is not self._process or process.reap() or self._reason is STOP:
            return  # Its end is seen by `_on_exit`; who was asked to end is waited for.
        if process.is_dying(self._dormant.private):
            self._on_exit()
        elif looks:
            self._later(_DYING_LOOK_S, self._on_dying, process, looks - 1)

    def _on_exit(self) -> None:
        """Read what it left, kill what it left, and tell."""
        process = self._process
        if process is None or not process.reap():
            return
        if self._exit_fd is not None:
            self._loop.remove_reader(self._exit_fd)
            os.close(self._exit_fd)
            self._exit_fd = None
        if self._next is not None and not self._next.done():
            # Who is being forked now is not known yet, and must not be killed with the old tree.
            self._next.add_done_callback(lambda _: self._on_exit())
            return
        self._output.drain()
        if self._dormant.comes(self._on_exit):
            return
        kill_all(self._members() - {process.pid})
        self._output.drain()
        self._pipes.drain()
        stack = self._stacks.read() or self._final_stack
        self._stacks.finish()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._process = None
        for part in (self._main, self._thread, self._output, self._pipes):
            part.close()
        process.close()
        status = process.exit_status
        code, number = exit_facts(0 if status is None else status)
        self.exited.set()
        self._emit(WorkerExited(code, number, stack, self._pipes.last_words(), self._reason))

    def _on_child(self) -> None:
        """Collect orphans a little later: a tree that dies ends in many signals."""
        if self._reap_timer is None:
            self._reap_timer = self._loop.call_later(_REAP_S, self._reap_orphans)

    def _reap_orphans(self) -> None:
        """Collect orphans of the worker's tree; the worker's own end is seen by `_on_exit`."""
        self._reap_timer = None
        known = self._spared()
        if self._process is not None:
            known |= {self._process.pid}
        tree.reap_orphans(os.getpid(), known)

    def _members(self) -> set[int]:
        process = self._process
        assert process is not None
        is_starting = self._next is not None and not self._next.done()
        is_forking = is_starting or self._template.is_forking
        adopter = _NOBODY if is_forking else os.getpid()
        return tree.members(tree.process_table(), process.pid, adopter, self._spared())

    def _spared(self) -> frozenset[int]:
        """Name our children that are none of this worker's: the template, the next worker."""
        spared = self._template.children() | self._dormant.pids()
        if self._next is not None and self._next.done() and self._next.exception() is None:
            spared |= {self._next.result().pid}
        return spared

    def _later(
        self, delay_s: float, call: Callable[..., None], *arguments: object
    ) -> asyncio.TimerHandle:
        timer = self._loop.call_later(delay_s, call, *arguments)
        self._timers = [
            t for t in self._timers if not t.cancelled() and t.when() > self._loop.time()
        ]
        self._timers.append(timer)
        return timer
