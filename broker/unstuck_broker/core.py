"""What happens to each message: all routing of the kernel, without a socket, a clock or a process.

Read `Core.decide` and on from there. An execute_request arrives in `_receive`, gets its run mode in
`_accept`, starts in `_dispatch`, puts out through `unstuck_broker.relay`, asks for input through
`unstuck_broker.questions`, and is answered in `finish`. A worker that dies goes through
`unstuck_broker.recovery`, an interrupt through `unstuck_broker.interrupts`.

Each request gets one busy, one reply (where its type has one) and one idle, in this order:
`_dispatch` and `Outbox.answer` say busy, `conclude` is the one place that says idle for a job, and
a job is in exactly one of the backlog, ``running`` and the past. Where something is answered beside
a cell, the kernel says busy again (`_stay_busy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from msgspec import Struct

from unstuck.config import Config, make_config, settings_of
from unstuck.errors import ConfigError
from unstuck.protocol import (
    AskExit,
    AskRestart,
    AskRewind,
    AskSnapshots,
    Caught,
    Failed,
    Finished,
    InputRequest,
    NewPipes,
    Outcome,
    Pong,
    Publish,
    Ready,
    SetConcurrencyMode,
    SetSettings,
    SnapshotSkipped,
    Snapshotted,
    Snapshotting,
    Start,
    Stream,
    ToBroker,
    TransplantProgress,
)
from unstuck.protocol import (
    Received as TookOver,
)
from unstuck.typing import BrokerMsgType, KernelConcurrencyMode, SocketID
from unstuck_broker import recovery, replies, served
from unstuck_broker.actions import Action, PublishToClients, SendToWorker
from unstuck_broker.backlog import Backlog
from unstuck_broker.comms import CommMirror
from unstuck_broker.controlparent import LastControl
from unstuck_broker.echoes import Echoes
from unstuck_broker.events import (
    Asked,
    CopiesMeasured,
    CopyAppeared,
    CopyGone,
    Event,
    FromWorker,
    LimitExceeded,
    Measured,
    OutputsHeld,
    PipeText,
    Received,
    Signalled,
    StackTaken,
    Subscribed,
    Terminated,
    Ticked,
    WorkerExited,
    WorkerProgress,
)
from unstuck_broker.gate import Arrival, Gate
from unstuck_broker.hangs import Hangs
from unstuck_broker.interrupts import Interrupts
from unstuck_broker.job import COMM, IN_WORKER, INTROSPECTION, Job, make_job
from unstuck_broker.lifecycle import E, Life, S
from unstuck_broker.outbox import NO_PARENT, Outbox
from unstuck_broker.questions import Questions
from unstuck_broker.relay import Relay
from unstuck_broker.revival import Revival
from unstuck_broker.rewind import Rewind
from unstuck_broker.subshells import Subshells
from unstuck_broker.timers import Timers
from unstuck_broker.tray import Tray
from unstuck_broker.waiting import Waiting

if TYPE_CHECKING:
    from unstuck_broker.wire import Request


class KernelFacts(Struct, frozen=True):
    """What the core tells clients and workers about this kernel."""

    session: str
    connection_file: str
    ports: dict[str, int]
    copies_address: str = ""
    """Where dormant copies of the worker report; empty where there are none."""
    started_at: str = ""
    """When this broker was started: ISO 8601, UTC; empty where that is not known."""


class Core:
    """The kernel's state, and the one function that changes it.

    Threads: none. `app` feeds it events one by one and carries out the actions.
    """

    def __init__(self, config: Config, facts: KernelFacts) -> None:
        """Begin with a worker that was just started."""
        self.config = config
        self.facts = facts
        self.life = Life()
        self.out = Outbox(config)
        self.gate = Gate()
        self.backlog = Backlog()
        self.tray = Tray(self)
        self.running: dict[int, Job] = {}
        self.timers = Timers()
        """Of jobs that may take only so long, and of introspection behind the gate."""
        self.waiting = Waiting(self)
        self.comms = CommMirror()
        self.subshells = Subshells()
        self.relay = Relay(self)
        self.echoes = Echoes(self)
        self.questions = Questions(self.out)
        self.interrupts = Interrupts(self)
        self.hangs = Hangs(self)
        self.recovery = recovery.Recovery(self)
        self.revival = Revival(self)
        self.rewind = Rewind(self)
        self.served = served.Served(self)
        self.concurrency_mode = KernelConcurrencyMode.default
        self.banner = ""
        self._had_worker = False
        self.worker_pid: int | None = None
        """Of the worker whose shell is there."""
        self.nobodys_header = replies.nobodys_header(facts.session)
        """Of what belongs to no request."""
        self.last_header = NO_PARENT
        """Of the newest cell in the main queue: what has no other parent belongs to it."""
        self.last_control = LastControl()
        self.count = 1
        """The number that the next cell gets."""
        self.last_number = 0
        """Of the newest request."""

    # --- the turn -------------------------------------------------------------------------------

    def decide(self, event: Event, now: float) -> list[Action]:
        """Take one event; give what has to be done about it, in order.

        Args:
            event: what happened.
            now: monotonic seconds.
        """
        self.hear(event, now)
        return self.follow(now)

    def hear(self, event: Event, now: float) -> None:
        """Take one event; `follow` is called next, and what is in ``out`` may leave before."""
        match event:
            case FromWorker(message):
                self._hear(message, now)
            case Received(request):
                self.out.begin_hold(now)
                self._receive(request, now)
            case PipeText():
                self.relay.pipe_text(event, now)
            case Ticked():
                pass
            case Subscribed(topic):
                self.out.welcome(topic)
            case WorkerExited():
                self.echoes.let_go()
                self.recovery.worker_exited(event, now)
            case StackTaken(stack, numbers):
                self.hangs.stack_taken(stack, numbers, now)
                self.interrupts.stack_taken(stack, numbers, now)
                self.served.stack_taken(stack, numbers)
            case Asked(number, msg_id):
                self.questions.asked(number, msg_id)
            case Measured(job, content):
                self.served.measured(job, content)
            case WorkerProgress():
                self.hangs.progress(event, now)
            case LimitExceeded(reason):
                self.recovery.kill(reason)
            case CopyAppeared() | CopyGone() | CopiesMeasured() | OutputsHeld():
                self.revival.take(event)
            case Signalled():
                self.interrupts.interrupt(None, now)
            case Terminated():
                self.recovery.shutdown(restart=False)
            case _:
                assert_never(event)

    def follow(self, now: float) -> list[Action]:
        """Do what is due, and what can start now; give what has to be done about all, in order."""
        self._tick(now)
        self._settle(now)
        self._stay_busy()
        return self.out.take()

    def _tick(self, now: float) -> None:
        """Do what is due."""
        self.waiting.tick(now)
        self.echoes.tick(now)
        self.interrupts.tick(now)
        self.revival.tick(now)
        self.out.tick(now)

    def _stay_busy(self) -> None:
        """Say that the kernel is busy, when something beside a cell was the last to say idle.

        Frontends show the last status that they heard, of whatever request, and jupyter_server
        culls by it: after one completion it would take the kernel from a cell that runs all night.
        """
        if self.out.says_idle and any(job.is_cell for job in self.running.values()):
            self.out.status(replies.BUSY, self.nobodys_header)

    def deadline_s(self) -> float | None:
        """Name the monotonic time at which the core wants to be `Ticked`."""
        named = (
            self.timers.deadline_s(),
            self.interrupts.deadline_s(),
            self.echoes.deadline_s(),
            self.revival.deadline_s(),
            *self.out.deadlines_s(),
        )
        return min((at for at in named if at is not None), default=None)

    @property
    def pending(self) -> bool:
        """Tell whether any request has no answer yet."""
        waiting = self.running or self.gate or self.served.waiting
        return bool(waiting) or not self.backlog.empty()

    @property
    def waiting_bytes(self) -> int:
        """Give the memory of requests that wait here."""
        return self.backlog.size_bytes + self.gate.size_bytes

    # --- requests -------------------------------------------------------------------------------

    def _receive(self, request: Request, now: float) -> None:
        """Take a request; behind a blocking one the shell channel is closed."""
        if request.channel is SocketID.stdin:
            self.questions.answer(request)
            return
        self.last_control.heard(request)
        self.last_number += 1
        arrival = Arrival(self.last_number, request, now)
        if request.channel is SocketID.shell and self.gate.closed:
            self.gate.hold(arrival)
            if request.kind in INTROSPECTION:
                self.timers.set(arrival.number, now + self.config.introspection_deadline_s)
        else:
            self._accept(arrival, now)
        if request.kind in COMM:
            self.echoes.heard(now)

    def _accept(self, arrival: Arrival, now: float) -> None:
        """Serve a request here, or make it a job with its run mode; refuse it with an answer."""
        request = arrival.request
        kind = request.kind
        if kind is None:
            name = request.header.msg_type
            self.out.refuse(request, "UnknownMessageType", f"unknown message type {name!r}")
        elif self.life.ended:
            self.out.answer(request, replies.ABORTED)
        elif isinstance(kind, BrokerMsgType) or kind not in IN_WORKER:
            self.served.serve(kind, request, now)
        else:
            try:
                job = make_job(arrival, kind, self.config, self.concurrency_mode)
            except ValueError as error:
                self.out.refuse(request, "ValueError", str(error))
                return
            if job.subshell is not None and job.subshell not in self.backlog.queues:
                self.out.refuse(
                    request, "UnknownSubshellError", replies.unknown_subshell(job.subshell)
                )
                return
            self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        """Let a job wait for its turn; `_settle` starts it in this same turn if it can."""
        if job.closes_shell:
            self.gate.close(job)
        if job.kind in INTROSPECTION:
            self.timers.set(job.number, job.received_s + self.config.introspection_deadline_s)
        self.backlog.add(job)

    def _settle(self, now: float) -> None:
        """Start what can start, and let through what waited behind a blocking job that is over."""
        self._pump(now)
        while (arrival := self.gate.next()) is not None:
            self._accept(arrival, now)
            self._pump(now)
        self.recovery.settle()

    def _pump(self, now: float) -> None:
        """Start the jobs whose turn it is."""
        if self.life.takes_jobs:
            self.tray.settle()
            for job in self.backlog.next_jobs():
                self._dispatch(job, now)
            self.tray.lend()

    def _dispatch(self, job: Job, now: float) -> None:
        """Hand a job to the worker, which may have it already."""
        self.life.advance(E.JOB_STARTED)
        self.recovery.job_started()
        self._begin(job, now)
        if (news := self.last_control.news()) is not None:
            self.out.order(SendToWorker(job.lane, news))
        if not job.is_with_worker:
            self.out.order(SendToWorker(job.lane, job.run()))

    def start_taken(self) -> None:
        """Count a cell as running that the worker has taken and not told about: it must not abort.

        One that has not been taken waits like the others.
        """
        self.tray.take_back()
        if (job := self.backlog.take_lent()) is not None:
            self._begin(job, job.received_s)

    def _begin(self, job: Job, now: float) -> None:
        """Note that a job runs, and show it."""
        self.running[job.number] = job
        job.started_s = now
        if job.is_cell and job.queued and job.subshell is None:
            self.last_header = job.request.header_json
        if job.timeout_s is not None:
            self.timers.set(job.number, now + job.timeout_s)
        if job.kind in COMM:
            self.comms.watch(job.kind, job.request.content_json)
        self.out.status(replies.BUSY, job.request.header_json)
        if job.is_cell and not job.is_silent:
            self._number(job)

    def _number(self, job: Job) -> None:
        """Show a cell and its number; where cells run at once, the worker may number otherwise."""
        job.execution_count = self.count
        self.revival.last_cell = max(self.revival.last_cell, self.count)
        if job.counts:
            self.count += 1
        header = job.request.header_json
        self.out.publish(PublishToClients("execute_input", job.input_content(), header))

    # --- the worker's messages --------------------------------------------------------------------

    def _hear(self, message: ToBroker, now: float) -> None:
        """Take a message of the worker."""
        match message:
            case Stream():
                self.relay.stream(message, now)
            case Publish():
                self.relay.publication(message)
            case Finished():
                self._end(message, now)
            case Caught(job=number):
                self.interrupts.caught(number, now)
            case InputRequest(job=number):
                self.questions.ask(message, self.running.get(number))
            case Ready(banner=banner, pid=pid):
                self.banner = banner
                self.worker_pid = pid
                self.recovery.worker_ready(now)
            case Failed(reason, traceback):
                self.recovery.worker_failed(reason, traceback)
            case SetConcurrencyMode(mode):
                self.concurrency_mode = mode
            case SetSettings(settings):
                self._set(settings)
            case AskRestart(job=number):
                self.recovery.ask("restart", number)
            case AskExit(keep_kernel=keep_kernel, job=number):
                if not keep_kernel:
                    self.recovery.ask("exit", number)
            case Snapshotting() | Snapshotted() | SnapshotSkipped():
                self.revival.heard(message, now)
            case TookOver():
                self.revival.received(message)
            case TransplantProgress():
                self.revival.progress(message, now)
            case AskSnapshots() | AskRewind():
                self.rewind.asked(message)
            case Pong() | NewPipes():
                pass  # `supervisor` and `pipes` have acted on them.
            case _:
                assert_never(message)

    def _end(self, message: Finished, now: float) -> None:
        job = self.running.get(message.job)
        if self.rewind.holds(message):
            return
        if job is not None:
            self.revival.ended(job)
            self.tray.job_ended(job, took_next=message.took_next)
        if message.is_captured and job is not None:
            self.echoes.hold(job, message, now)
        else:
            self.finish(message)

    def finish(self, message: Finished) -> None:
        """Answer a job that has ended; one that was answered before (deadline, restart) is over."""
        job = self.running.get(message.job)
        if job is None:
            return
        if job.timed_out and not job.suppresses_error:
            stops = job.stop_on_error
            evalue = f"the cell did not end within its timeout of {job.timeout_s:g} s"
            where = replies.traceback_of(message.content)
            self.fail(job, "TimeoutError", evalue, [*where, f"TimeoutError: {evalue}"])
        else:
            stops = message.outcome is Outcome.error and message.stop_on_error
            self.relay.note_cut_output(job)
            self.out.reply(
                job.request,
                message.content,
                metadata=message.metadata,
                buffers=message.buffers,
            )
        horizon = self.interrupts.horizon(job)
        self.conclude(job)
        if message.counter and not self.running:
            self.count = message.counter
        if stops:
            self.waiting.abort_behind(job, horizon)
        self.recovery.job_finished(job)

    # --- the end of jobs --------------------------------------------------------------------------

    def fail(self, job: Job, ename: str, evalue: str, traceback: list[str]) -> None:
        """Answer a running job with an error of ours; `conclude` follows."""
        self.relay.note_cut_output(job)
        self.out.cell_error(job, ename, evalue, traceback)

    def conclude(self, job: Job) -> None:
        """Say idle: the job is over, its one reply is out."""
        del self.running[job.number]
        self.backlog.finished(job)
        self.questions.forget(job)
        self.out.flush(job.request.header_json)
        self.out.status(replies.IDLE, job.request.header_json)
        self.interrupts.job_ended(job)
        self.waiting.over(job)
        if not self.running:
            self.hangs.forget()
            if self.life.state is S.BUSY:
                self.life.advance(E.LAST_JOB_FINISHED)

    # --- the worker's facts -----------------------------------------------------------------------

    def _set(self, settings: dict[str, object]) -> None:
        """Take settings that `%unstuck` has checked; others are refused, not fatal."""
        try:
            self.config = make_config(settings_of(self.config) | settings)
        except ConfigError as error:
            self.out.log(f"refused settings why={str(error)!r}")
        if self.config.snapshots == "off":
            self.revival.drop_all()

    def start_message(self) -> Start:
        """Tell a new worker who it is."""
        is_first, self._had_worker = not self._had_worker, True
        return Start(
            session=self.facts.session,
            connection_file=self.facts.connection_file,
            settings=settings_of(self.config),
            execution_count=self.revival.next_cell,
            copies_address=self.facts.copies_address,
            snapshot_floor=self.revival.copies.next_floor(),
            is_first=is_first,
        )
