"""Wires sockets, core and supervisor; what is to be done is decided in `unstuck_broker.core`.

The hot path has no await: a descriptor becomes readable, its message becomes an event, and the
core's actions are carried out, all in one callback of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

from unstuck import heap
from unstuck.protocol import Finished, Outcome, Pong, Ready
from unstuck.typing import SocketID
from unstuck_broker import replies
from unstuck_broker.actions import (
    Action,
    AskClient,
    DropCopies,
    Exit,
    KillWorker,
    LendToWorker,
    Log,
    MeasureUsage,
    PromoteCopy,
    PublishToClients,
    ReplyToClient,
    SendToWorker,
    SignalWorker,
    SpawnWorker,
    StopWorker,
    TakeStack,
    urgency,
)
from unstuck_broker.copywatch import CopyWatch
from unstuck_broker.dormant import Dormant
from unstuck_broker.events import (
    Asked,
    Event,
    FromWorker,
    Measured,
    OutputsHeld,
    Received,
    Signalled,
    Terminated,
    Ticked,
    WorkerExited,
)
from unstuck_broker.launcher import watch_launcher
from unstuck_broker.log import log
from unstuck_broker.pace import Precedence
from unstuck_broker.process import become_subreaper
from unstuck_broker.publisher import Publisher
from unstuck_broker.reader import Reader
from unstuck_broker.states import States
from unstuck_broker.supervisor import Supervisor
from unstuck_broker.trial import REST_S, Trial, Verdict
from unstuck_broker.usage import Usage
from unstuck_broker.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unstuck.config import Config
    from unstuck_broker.core import Core
    from unstuck_broker.process import WorkerProcess
    from unstuck_broker.sockets import Sockets
    from unstuck_broker.template import Template
    from unstuck_broker.wire import Wire

_MESSAGES = (SendToWorker, PublishToClients, ReplyToClient)
"""What may wait for the next event's messages, and be overtaken by what goes to the worker."""
_ADOPTION_S = 0.002
"""Orphans are ours from then on: behind the first answer, and before start-up files of a user's."""
_ASK_S = 10.0
"""How long a question waits for a client that has not connected its stdin channel."""
_ASK_AGAIN_S = 0.02
_EXIT_S = 0.25
"""How long the broker waits for its worker at a shutdown before it leaves it to the undertaker."""
_RESTART_S = 0.08
"""The same where somebody waits for our exit to start the next kernel."""


class App:
    """The broker's loop."""

    def __init__(
        self,
        config: Config,
        core: Core,
        wire: Wire,
        sockets: Sockets,
        worker: WorkerProcess,
        template: Template,
        launcher_pid: int | None,
    ) -> None:
        """Join the parts; `serve` runs them."""
        self._config = config
        self._core = core
        self._wire = wire
        self._sockets = sockets
        self._first_worker = worker
        self._template = template
        self._trial = Trial()
        self._launcher_pid = launcher_pid
        self._events: deque[Event] = deque()
        self._actions: list[Action] = []
        self._date = _now()
        self._deciding = False
        self._is_rapid = False
        """What is decided about is a request on control that came right behind another one."""
        self._usage = Usage()
        self._timer: asyncio.TimerHandle | None = None
        self._exit: Exit | None = None

    async def serve(self) -> None:
        """Run the kernel until it is shut down."""
        self._loop = loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._publisher = Publisher(self._sockets, self._config, loop, self._flow)
        self._reader = Reader(
            loop, self._sockets, self._wire, self._emit, self._backlog_full, self._asked
        )
        self._reader.room_on_iopub = self._publisher.retry
        self._dormant = dormant = Dormant(loop, self._core.facts.copies_address, self._emit)
        self._precedence = Precedence(loop, self._read_control)
        self._states = States(loop, self._publish, self._core.nobodys_header)
        self._supervisor = Supervisor(
            loop,
            self._config,
            self._emit,
            self._template,
            self._core.start_message,
            dormant,
            self._precedence,
        )
        self._copy_watch = CopyWatch(loop, dormant, self._supervisor, self._emit)
        self._watch = Watch(loop, self._supervisor, self._emit)
        self._core.tray.read = self._supervisor.empty_tray
        start = self._core.start_message()
        self._supervisor.attach(self._first_worker, start=start)
        loop.add_signal_handler(signal.SIGINT, self._reader.interrupt, Signalled())
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._terminate)
        watch_launcher(loop, self._launcher_pid, self._terminate)
        self._reader.start()
        loop.call_later(_ADOPTION_S, self._adopt, start.settings)
        try:
            await self._ended.wait()
            await self._leave()
        finally:
            self._reader.stop()
            self._sockets.close()

    def _adopt(self, settings: object) -> None:
        """Have orphans become our children; the first worker's template is one."""
        become_subreaper()
        self._template.leave(settings)

    # --- clients ----------------------------------------------------------------------------------

    def _asked(self) -> None:
        """Note that somebody asks on control now."""
        self._precedence.note()
        self._is_rapid = self._states.is_rapid()

    def _read_control(self) -> None:
        """Read what waits on control, unless this is in the middle of a decision."""
        if not self._deciding:
            self._reader.read(SocketID.control)

    def _touch(self, channel: SocketID) -> None:
        """Have a channel read again that we sent on; after a decision `_emit` does so at once."""
        if self._deciding:
            self._reader.touch(channel)
        else:
            self._reader.look_again(channel)

    def _backlog_full(self) -> bool:
        waiting = self._core.waiting_bytes + self._supervisor.waiting_bytes
        return waiting > self._config.backlog_bytes

    # --- events and actions -----------------------------------------------------------------------

    def _emit(self, event: Event, *, more: bool = False) -> None:
        """Let the core decide about an event, after those that it is deciding about now.

        Args:
            event: what happened.
            more: the next event follows at once; messages may be sent together with its.
        """
        self._events.append(event)
        if self._deciding:
            return
        self._deciding = True
        try:
            while self._events:
                self._decide(self._events.popleft(), more=more)
        finally:
            self._deciding = self._is_rapid = False
        if more:
            return
        self._reader.look_at_touched()
        self._watch.follow(self._core.config, busy=bool(self._core.running))
        self._copy_watch.follow(self._core.config)
        self._set_timer()

    def _terminate(self) -> None:
        """End the kernel; also where a fault of ours keeps the core from deciding so."""
        try:
            self._emit(Terminated())
        finally:
            self._ended.set()

    def _decide(self, event: Event, *, more: bool = False) -> None:
        if self._trial.verdict is Verdict.open:
            self._judge(event)
        if isinstance(event, FromWorker):
            match event.message:
                case Finished():
                    self._finishing(event.message)
                case Pong():
                    self._watch.answered(event.message)
                case Ready():
                    self._loop.call_soon(heap.trim)  # All that both processes need is loaded.
                case _:
                    pass
        elif isinstance(event, WorkerExited):
            self._watch.new_worker()
        now = time.monotonic()
        self._core.hear(event, now)
        if isinstance(event, Received) and event.request.channel is SocketID.control:
            self._answer()
        self._actions += self._core.follow(now)
        if more and all(isinstance(action, _MESSAGES) for action in self._actions):
            return
        actions, self._actions = self._actions, []
        if len(actions) > 1:
            actions.sort(key=urgency)
        if actions:
            self._date = _now()
        for action in actions:
            self._do(action)

    def _answer(self) -> None:
        """Send the answers on control, ahead of all else that is due."""
        answers = self._core.out.take_answers()
        if answers:
            self._date = _now()
        for answer in answers:
            self._reply(answer)

    def _judge(self, event: Event) -> None:
        """Keep the first worker's template or end it, but only when the event is dealt with."""
        verdict = self._trial.judge(event, time.monotonic())
        if verdict is not Verdict.open:
            self._loop.call_soon(self._template.settle, verdict is Verdict.keep)
        elif isinstance(event, FromWorker) and isinstance(event.message, Ready):
            self._loop.call_later(REST_S, self._emit, Ticked())

    def _finishing(self, message: Finished) -> None:
        """Before a failed cell aborts others, take in all that came before its end."""
        if message.outcome is Outcome.error and message.stop_on_error:
            waiting, self._events = self._events, deque()
            self._reader.read_shell()
            for event in self._events:
                self._decide(event)
            self._events = waiting
        self._touch(SocketID.shell)  # There is room in the backlog again.

    def _do(self, action: Action) -> None:
        """Carry out one action."""
        supervisor = self._supervisor
        match action:
            case SendToWorker(lane, message):
                supervisor.send(lane, message)
            case LendToWorker(run):
                supervisor.lend(run)
            case PublishToClients(msg_type="status") if self._is_rapid:
                self._states.hold(action, self._date)
            case PublishToClients():
                self._states.let_go()
                self._publish(action, self._date)
            case ReplyToClient():
                self._reply(action)
            case AskClient():
                self._ask(action, time.monotonic() + _ASK_S)
            case SpawnWorker(delay_s, donor):
                supervisor.spawn(delay_s, donor)
            case PromoteCopy(number, order):
                supervisor.promote(number, order)
            case DropCopies(numbers):
                self._dormant.drop(numbers)
            case SignalWorker(tree):
                supervisor.interrupt(whole_tree=tree)
            case KillWorker(reason):
                supervisor.kill(reason)
            case StopWorker(grace_s):
                supervisor.restart(grace_s)
            case TakeStack(number):
                supervisor.take_stack(number)
            case MeasureUsage(job):
                usage = self._usage.measure(supervisor.pids() | {os.getpid()})
                self._emit(Measured(job, replies.encode(usage)))
            case Exit():
                self._exit = action
                self._ended.set()
            case Log(line):
                log(line)
            case _:
                assert_never(action)

    def _reply(self, action: ReplyToClient) -> None:
        request = action.request
        sent = self._send(
            request.channel,
            request.idents,
            action.msg_type,
            action.content,
            request.header_json,
            action.metadata,
            action.buffers,
        )
        if not sent:
            why = "the client does not read"
            log(f"dropped channel={request.channel} msg_type={action.msg_type} why={why!r}")

    def _ask(self, action: AskClient, until_s: float) -> None:
        """Ask a client for input; one that was just started may not have connected stdin yet."""
        request = action.request
        if not self._core.questions.is_open(action.number):
            return
        header, last = request.header_json, time.monotonic() >= until_s
        if self._send(SocketID.stdin, request.idents, "input_request", action.content, header):
            self._emit(Asked(action.number, self._wire.last_msg_id))
        elif last:
            log("dropped channel=stdin msg_type=input_request why='no such client there'")
        else:
            self._loop.call_later(_ASK_AGAIN_S, self._ask, action, until_s)

    def _publish(self, action: PublishToClients, date: str) -> None:
        topic = action.topic or f"kernel.{self._core.facts.session}.{action.msg_type}".encode()
        frames = self._wire.serialize(
            (topic,),
            action.msg_type,
            action.content,
            date=date,
            parent_header=action.parent_header,
            metadata=action.metadata,
            buffers=action.buffers,
        )
        self._publisher.publish(frames)
        self._touch(SocketID.iopub)

    def _send(
        self,
        channel: SocketID,
        idents: Sequence[bytes],
        msg_type: str,
        content: bytes,
        parent_header: bytes,
        metadata: bytes = b"{}",
        buffers: Sequence[bytes | memoryview] = (),
    ) -> bool:
        frames = self._wire.serialize(
            idents,
            msg_type,
            content,
            date=self._date,
            parent_header=parent_header,
            metadata=metadata,
            buffers=buffers,
        )
        self._touch(channel)
        return self._sockets.send(channel, frames)

    def _flow(self, *, blocked: bool) -> None:
        """Hold the worker's outputs while subscribers are behind."""
        if blocked:
            self._supervisor.pause()
        else:
            self._supervisor.resume()
        self._loop.call_soon(self._emit, OutputsHeld(blocked))

    # --- time -------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Have the core ticked at its next deadline."""
        deadline_s = self._core.deadline_s()
        timer = self._timer
        if timer is not None:
            if deadline_s is not None and timer.when() <= deadline_s and not timer.cancelled():
                return  # It comes early enough, and then looks again.
            timer.cancel()
        self._timer = None
        if deadline_s is not None:
            self._timer = self._loop.call_at(deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._emit(Ticked())

    # --- the end ----------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Give the worker a moment to end; whoever asked for the restart waits for our exit."""
        self._reader.let_interrupts_in()
        supervisor = self._supervisor
        supervisor.stop(self._config.shutdown_grace_s)
        is_restart = self._exit is not None and self._exit.restart
        with contextlib.suppress(TimeoutError):
            exited = supervisor.exited.wait()
            await asyncio.wait_for(exited, _RESTART_S if is_restart else _EXIT_S)
        self._states.let_go()
        self._publisher.retry()
        self._dormant.close()
        supervisor.leave()


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
