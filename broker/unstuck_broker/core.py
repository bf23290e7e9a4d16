"""What happens to each message: all routing of the kernel, without a socket, a clock or a process.

Read `Core.decide` and on from there. An execute_request arrives in `_receive`, gets its run mode in
`_accept`, starts in `_dispatch`, is answered in `_finish`; a worker that dies goes through
`unstuck_broker.recovery`, an interrupt through `unstuck_broker.interrupts`.

Each request gets one busy, one reply (where its type has one) and one idle, in this order: `_dispatch` and
`Outbox.answer` say busy, `conclude` is the one place that says idle for a job, and a job is in exactly one of
the backlog, ``running`` and the past.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, assert_never

import msgspec
from msgspec import Struct

from unstuck.config import Config, make_config, worker_settings
from unstuck.errors import ConfigError
from unstuck.protocol import (
    AskExit,
    AskRestart,
    Failed,
    Finished,
    InputReply,
    InputRequest,
    NewPipes,
    Outcome,
    Pong,
    Publish,
    Ready,
    SetConcurrencyMode,
    SetSettings,
    Start,
    Stream,
    ToBroker,
)
from unstuck.typing import BrokerMsgType, KernelConcurrencyMode, MsgType, SocketID
from unstuck_broker import recovery, replies, served
from unstuck_broker.actions import (
    Action,
    AskClient,
    Lane,
    PublishToClients,
    SendToWorker,
    SpawnWorker,
)
from unstuck_broker.backlog import Backlog
from unstuck_broker.comms import CommMirror
from unstuck_broker.events import (
    Event,
    FromWorker,
    LimitExceeded,
    Measured,
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
from unstuck_broker.hangs import Hangs
from unstuck_broker.interrupts import Interrupts
from unstuck_broker.job import COMM, INTROSPECTION, Job, make_job
from unstuck_broker.lifecycle import E, Life, S
from unstuck_broker.outbox import NO_PARENT, Outbox
from unstuck_broker.subshells import Subshells

if TYPE_CHECKING:
    from unstuck_broker.wire import Request

IN_WORKER = frozenset({MsgType.execute_request, *INTROSPECTION, *COMM})
"""What the worker runs; the broker serves the rest."""


class KernelFacts(Struct, frozen=True):
    """What the core tells clients and workers about this kernel."""

    session: str
    connection_file: str
    ports: dict[str, int]


class _ExecuteInput(Struct):
    execution_count: int


class _InputContent(Struct):
    value: str


_execute_input = msgspec.json.Decoder(_ExecuteInput)
_input_reply = msgspec.json.Decoder(_InputContent)


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
        self.backlog = Backlog()
        self.running: dict[int, Job] = {}
        self.comms = CommMirror()
        self.subshells = Subshells()
        self.interrupts = Interrupts(self)
        self.hangs = Hangs(self)
        self.recovery = recovery.Recovery(self)
        self.served = served.Served(self)
        self.concurrency_mode = KernelConcurrencyMode.default
        self.banner = ""
        self.last_header = NO_PARENT
        """Of the newest cell in the main queue: what has no other parent belongs to it."""
        self._blocking: Job | None = None
        """The job that keeps the shell channel closed."""
        self._held: deque[Request] = deque()
        """What came on shell behind it."""
        self._inputs: dict[int, Job] = {}
        """Open input requests of the worker, in order."""
        self._timers: list[tuple[float, int]] = []
        """(monotonic deadline, job) of jobs that may take only so long."""
        self.last_number = 0

    # --- the turn -------------------------------------------------------------------------------

    def decide(self, event: Event, now: float) -> list[Action]:
        """Take one event; give what has to be done about it, in order.

        Args:
            event: what happened.
            now: monotonic seconds.
        """
        match event:
            case FromWorker(message):
                self._hear(message, now)
            case Received(request):
                self.out.begin_hold(now)
                self._receive(request, now)
            case PipeText(name, text, parent_header):
                parent = self.last_header if parent_header is None else parent_header
                self.out.stream(parent, name, text, now)
            case Ticked():
                pass
            case Subscribed(topic):
                content = replies.encode({"subscription": topic.decode("utf-8", "replace")})
                self.out.somebody_listens()
                self.out.publish(PublishToClients("iopub_welcome", content, topic=topic))
            case WorkerExited():
                self.recovery.worker_exited(event, now)
            case StackTaken(stack, numbers):
                self.hangs.stack_taken(stack, numbers, now)
                self.interrupts.stack_taken(stack, numbers, now)
                self.served.stack_taken(stack, numbers)
            case Measured(job, content):
                self.served.measured(job, content)
            case WorkerProgress():
                self.hangs.progress(event, now)
            case LimitExceeded(reason):
                self.recovery.kill(reason)
            case Signalled():
                self.interrupts.interrupt(None, now)
            case Terminated():
                self.recovery.shutdown(restart=False)
            case _:
                assert_never(event)
        self._tick(now)
        self._pump(now)
        return self.out.take()

    def deadline_s(self) -> float | None:
        """Name the monotonic time at which the core wants to be `Ticked`."""
        deadlines = self.out.deadlines_s()
        if self._timers:
            deadlines.append(self._timers[0][0])
        if (rung := self.interrupts.deadline_s()) is not None:
            deadlines.append(rung)
        return min(deadlines, default=None)

    @property
    def waiting_bytes(self) -> int:
        """Give the memory of requests that wait here."""
        held = sum(len(request.content_json) for request in self._held)
        return self.backlog.size_bytes + held

    # --- requests -------------------------------------------------------------------------------

    def _receive(self, request: Request, now: float) -> None:
        """Take a request; behind a blocking one the shell channel is closed."""
        if request.channel is SocketID.stdin:
            self._take_input(request)
        elif request.channel is SocketID.shell and self._blocking is not None:
            self._held.append(request)
        else:
            self._accept(request, now)

    def _accept(self, request: Request, now: float) -> None:
        """Serve a request here, or make it a job with its run mode; refuse it with an answer."""
        kind = request.kind
        if kind is None:
            name = request.header.msg_type
            self._refuse(request, "UnknownMessageType", f"unknown message type {name!r}")
        elif self.life.ended:
            self.out.answer(request, replies.ABORTED)
        elif isinstance(kind, BrokerMsgType) or kind not in IN_WORKER:
            self.served.serve(kind, request, now)
        else:
            self.last_number += 1
            try:
                job = make_job(
                    self.last_number, request, kind, now, self.config, self.concurrency_mode
                )
            except ValueError as error:
                self._refuse(request, "ValueError", str(error))
                return
            if job.subshell is not None and job.subshell not in self.backlog.queues:
                self._refuse(request, "UnknownSubshellError", f"no subshell {job.subshell!r}")
                return
            self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        """Let a job wait for its turn; `_pump` starts it in this same turn if it can."""
        if job.blocks_channel and job.request.channel is SocketID.shell:
            self._blocking = job
        if job.kind in INTROSPECTION:
            self.set_timer(job, job.received_s + self.config.introspection_deadline_s)
        if job.kind in COMM:
            self.comms.watch(job.kind, job.request.content_json)
        self.backlog.add(job)

    def _refuse(self, request: Request, ename: str, evalue: str) -> None:
        """Answer a request that cannot be run."""
        self.out.log(f"refused msg_type={request.header.msg_type} why={evalue!r}")
        self.out.answer(request, replies.error(ename, evalue, [f"{ename}: {evalue}"]))

    def _pump(self, now: float) -> None:
        """Start what can start."""
        if self.life.takes_jobs:
            for job in self.backlog.next_jobs():
                self._dispatch(job, now)
        if self.recovery.announced:
            self.recovery.pump(now)

    def _dispatch(self, job: Job, now: float) -> None:
        """Hand a job to the worker."""
        self.life.advance(E.JOB_STARTED)
        self.running[job.number] = job
        if job.is_cell and job.queued and job.subshell is None:
            self.last_header = job.request.header_json
        if job.timeout_s is not None:
            self.set_timer(job, now + job.timeout_s)
        self.out.status(replies.BUSY, job.request.header_json)
        self.out.order(SendToWorker(job.lane, job.run()))

    # --- the worker's messages --------------------------------------------------------------------

    def _hear(self, message: ToBroker, now: float) -> None:
        """Take a message of the worker."""
        match message:
            case Stream():
                self._hear_stream(message, now)
            case Publish():
                self._hear_publication(message)
            case Finished():
                self._finish(message, now)
            case InputRequest():
                self._ask_input(message)
            case Ready(banner=banner):
                self.banner = banner
                self.recovery.worker_ready()
            case Failed(reason, traceback):
                self.recovery.worker_failed(reason, traceback)
            case SetConcurrencyMode(mode):
                self.concurrency_mode = mode
            case SetSettings(settings):
                self._set(settings)
            case AskRestart():
                self.recovery.ask_restart()
            case AskExit():
                self.recovery.ask_exit()
            case Pong() | NewPipes():
                pass  # `supervisor` and `pipes` have acted on them.
            case _:
                assert_never(message)

    def _parent(self, number: int, parent_header: bytes) -> bytes:
        """Find the parent of an output: the running job's header, or what the worker has kept."""
        job = self.running.get(number)
        return parent_header or (NO_PARENT if job is None else job.request.header_json)

    def _hear_stream(self, message: Stream, now: float) -> None:
        job = self.running.get(message.job)
        if job is not None and not job.meter.take(len(message.text)):
            return
        parent = self._parent(message.job, message.parent_header)
        self.out.stream(parent, message.name, message.text, now)

    def _hear_publication(self, message: Publish) -> None:
        job = self.running.get(message.job)
        msg_type = message.msg_type
        if msg_type == "execute_input" and job is not None:
            job.execution_count = _execute_input.decode(message.content).execution_count
        elif msg_type == "error" and job is not None and job.timed_out:
            return  # The cell's KeyboardInterrupt was our timeout: `_finish` says so.
        elif job is not None and not job.meter.take(len(message.content)):
            return
        self.comms.watch(msg_type, message.content)
        parent = self._parent(message.job, message.parent_header)
        self.out.publish(
            PublishToClients(
                msg_type, message.content, parent, message.metadata, message.topic, message.buffers
            )
        )

    def _finish(self, message: Finished, now: float) -> None:
        """Answer a job that has ended; one that was answered before (deadline, restart) is over."""
        job = self.running.get(message.job)
        if job is None:
            return
        failed = message.outcome is Outcome.error
        if job.timed_out:
            evalue = f"the cell did not end within its timeout of {job.timeout_s:g} s"
            self.out.cell_error(job, "TimeoutError", evalue, [f"TimeoutError: {evalue}"])
        else:
            self._note_cut_output(job, now)
            self.out.reply(
                job.request,
                message.content,
                metadata=message.metadata,
                buffers=message.buffers,
            )
        horizon = self.interrupts.horizon(job, self.last_number)
        self.conclude(job)
        if job.is_cell and failed and message.stop_on_error:
            self.abort_queued(job, horizon)
        self.recovery.job_finished()
        self._reopen_channel(now)

    def _note_cut_output(self, job: Job, now: float) -> None:
        if job.meter.cut:
            limit = self.config.output_bytes_per_cell
            text = (
                f"\n[unstuck] {job.meter.cut:,} bytes of this cell's output were cut: "
                f"the limit output_bytes_per_cell is {limit:,}.\n"
            )
            self.out.stream(job.request.header_json, replies.STDERR, text, now)

    # --- the end of jobs --------------------------------------------------------------------------

    def conclude(self, job: Job) -> None:
        """Say idle: the job is over, its one reply is out."""
        del self.running[job.number]
        self.backlog.finished(job)
        for number in [n for n, waiting in self._inputs.items() if waiting is job]:
            del self._inputs[number]
        self.out.flush(job.request.header_json)
        self.out.status(replies.IDLE, job.request.header_json)
        self.interrupts.job_ended(job)
        if not self.running and self.life.state is S.BUSY:
            self.life.advance(E.LAST_JOB_FINISHED)

    def abort_queued(self, job: Job, horizon: int) -> None:
        """Abort the cells queued behind a failed one, those received up to ``horizon``."""

        def behind(other: Job) -> bool:
            same = other.queued and other.subshell == job.subshell
            return other.is_cell and same and other.number <= horizon

        for other in self.backlog.take(behind):
            self.out.answer(other.request, replies.ABORTED)
        if job is self._blocking:
            cells = [r for r in self._held if r.kind is MsgType.execute_request]
            self._held = deque(r for r in self._held if r.kind is not MsgType.execute_request)
            for request in cells:
                self.out.answer(request, replies.ABORTED)

    def abort_waiting(self, content: bytes = replies.ABORTED) -> None:
        """Answer everything that waits, with the same words."""
        for job in self.backlog.take(lambda _job: True):
            self.out.answer(job.request, content)
        while self._held:
            self.out.answer(self._held.popleft(), content)

    def _reopen_channel(self, now: float) -> None:
        """Take in what waited behind a blocking job, until the next one."""
        if self._blocking is not None and self._blocking.number not in self.running:
            if any(job is self._blocking for job in self.backlog.unqueued()):
                return
            self._blocking = None
        while self._held and self._blocking is None:
            self._accept(self._held.popleft(), now)
            self._pump(now)

    # --- time -------------------------------------------------------------------------------------

    def set_timer(self, job: Job, deadline_s: float) -> None:
        """Come back to a job at a time."""
        heapq.heappush(self._timers, (deadline_s, job.number))

    def _tick(self, now: float) -> None:
        """Do what is due."""
        while self._timers and self._timers[0][0] <= now:
            _, number = heapq.heappop(self._timers)
            self._overdue(number, now)
        self.interrupts.tick(now)
        self.out.tick(now)

    def _overdue(self, number: int, now: float) -> None:
        """Answer an introspection that took too long; begin the ladder for a cell that did."""
        waiting = self.backlog.take(lambda job: job.number == number)
        for late in waiting:
            self.out.answer(late.request, replies.unanswered(late.kind, late.request))
        job = self.running.get(number)
        if job is None:
            return
        if job.is_cell:
            self.interrupts.time_out(job, now)
        else:
            self.out.reply(job.request, replies.unanswered(job.kind, job.request))
            self.conclude(job)
            self._reopen_channel(now)

    # --- input ------------------------------------------------------------------------------------

    def _ask_input(self, message: InputRequest) -> None:
        job = self.running.get(message.job)
        if job is None:
            withdrawn = InputReply(message.request, None)
            self.out.order(SendToWorker(Lane.thread, withdrawn))
            return
        self._inputs[message.request] = job
        self.out.flush(job.request.header_json)
        content = replies.encode({"prompt": message.prompt, "password": message.password})
        self.out.order(AskClient(job.request, content, message.request))

    def _take_input(self, request: Request) -> None:
        """Give an input_reply to the newest open question of its client."""
        open_questions = [
            number for number, job in self._inputs.items() if job.request.idents == request.idents
        ]
        try:
            value = _input_reply.decode(request.content_json).value
        except msgspec.MsgspecError as error:
            self.out.log(f"dropped channel=stdin why={f'malformed input_reply: {error}'!r}")
            return
        if request.header.msg_type != "input_reply" or not open_questions:
            self.out.log("dropped channel=stdin why='no cell of this client waits for input'")
            return
        number = open_questions[-1]
        del self._inputs[number]
        self.out.order(SendToWorker(Lane.thread, InputReply(number, value)))

    # --- settings ---------------------------------------------------------------------------------

    def _set(self, settings: dict[str, object]) -> None:
        """Take settings that `%unstuck` has checked; a worker that sends others is wrong, not fatal."""
        try:
            now_set = {name: getattr(self.config, name) for name in self.config.__struct_fields__}
            self.config = make_config(now_set | settings)
        except ConfigError as error:
            self.out.log(f"refused settings why={str(error)!r}")

    def start_message(self) -> Start:
        """Tell a new worker who it is."""
        return Start(
            session=self.facts.session,
            connection_file=self.facts.connection_file,
            settings=worker_settings(self.config),
        )

    def forget_worker(self, now: float) -> None:
        """Begin anew: what the dead worker was told is gone with it."""
        self.concurrency_mode = KernelConcurrencyMode.default
        self._inputs.clear()
        self._reopen_channel(now)

    def spawn(self, delay_s: float = 0.0) -> None:
        """Have a worker started."""
        self.out.order(SpawnWorker(delay_s))
