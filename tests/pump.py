"""The core and a fake worker in memory: events in, orders carried out, time is a number.

`Pump.feed` gives the actions of one event, to be compared whole. What a real worker or supervisor
would answer to an order waits in ``Pump.due`` until the test lets it happen.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec import structs

from ledger import Ledger
from unstuck.config import Config
from unstuck.protocol import (
    AskExit,
    AskRestart,
    AskRewind,
    CopyReady,
    Finished,
    InputReply,
    InputRequest,
    Outcome,
    Publish,
    Ready,
    Run,
    SetConcurrencyMode,
    Snapshotted,
    Snapshotting,
    Stream,
    StreamName,
    ToBroker,
)
from unstuck.typing import BrokerMsgType, MsgType, RunMode, SocketID
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
)
from unstuck_broker.core import Core, KernelFacts
from unstuck_broker.events import (
    CopyAppeared,
    Event,
    FromWorker,
    Measured,
    Received,
    StackTaken,
    Subscribed,
    Ticked,
    WorkerExited,
)
from unstuck_broker.wire import Header, Request
from words import tell

if TYPE_CHECKING:
    from unstuck_broker.reason import Reason

BOOM = replies.error("ValueError", "boom", ["ValueError: boom"])
FACTS = KernelFacts(
    "kernel-session",
    "/run/kernel.json",
    {"shell_port": 1, "control_port": 2},
    started_at="2026-11-30T03:00:00.500000+00:00",
)
READY = Ready(pid=4711, banner="hello", ipython_version="9.18")
_KINDS = {str(kind): kind for kind in (*MsgType, *BrokerMsgType)}


def make_request(
    msg_type: str = "execute_request",
    msg_id: str = "m1",
    *,
    channel: SocketID = SocketID.shell,
    client: str = "client",
    content: dict[str, Any] | bytes | None = None,
    metadata: dict[str, Any] | None = None,
    subshell: str | None = None,
    run_mode: Any = None,  # noqa: ANN401 - a client may write anything
    parent: dict[str, Any] | None = None,
    date: str = "",
) -> Request:
    """Make a verified request as `unstuck_broker.wire` gives it."""
    if content is None:
        content = {"code": "1"} if msg_type == "execute_request" else {}
    header: dict[str, Any] = {"msg_id": msg_id, "msg_type": msg_type, "session": client}
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Request(
        channel=channel,
        idents=(client.encode(),),
        header=Header(
            msg_id=msg_id,
            msg_type=msg_type,
            session=client,
            date=date,
            subshell_id=subshell,
            run_mode=run_mode,
        ),
        kind=_KINDS.get(msg_type),
        header_json=json.dumps(header).encode(),
        parent_json=json.dumps(parent or {}).encode(),
        metadata_json=b"{}" if metadata is None else json.dumps(metadata).encode(),
        content_json=raw,
        buffers=(),
    )


def make_word(number: int, **more: Any) -> CopyReady:  # noqa: ANN401 - of any field
    """Make what a faithful copy says of itself."""
    fields: dict[str, Any] = {
        "name": "", "cell": 1, "kind": "promotable", "reasons": [], "lost": [],
        "taken_at": 1e9, "history_session": 1, "is_faithful": True,
    }  # fmt: skip
    pid = more.pop("pid", 9000 + number)
    return CopyReady(number=number, pid=pid, **{**fields, **more})


class Pump:
    """A core whose worker and clients are played by the test.

    ``process`` says how the fake worker is: "none", "starting" or "ready"; ``jobs`` is what it
    runs.
    """

    def __init__(self, config: Config | None = None, *, listening: bool = True) -> None:
        """Begin with a worker that was just started, and a client that listens on iopub."""
        self.core = Core(config or Config(), FACTS)
        self.now = 100.0
        self.process = "starting"
        self.doomed = False
        """It was killed, or asked to stop: its exit is to come."""
        self.to_spawn = 0
        """Ordered starts that have not happened."""
        self.jobs: dict[int, Run] = {}
        self.tray: Run | None = None
        """What is lent to the worker."""
        self.taken: Run | None = None
        """What it has taken of that; it starts when the cell before it has ended."""
        self.started: set[int] = set()
        """All jobs that a worker has ever run."""
        self.has_asked = False
        """The running cell wants something of the broker at its end."""
        self.core.tray.read = self._empty_tray
        self.questions: dict[int, int] = {}
        """Open input requests: number to job."""
        self.copies: set[int] = set()
        """Dormant copies, by number."""
        self.spares: set[int] = set()
        """Those of which there are two processes."""
        self.due: deque[Event] = deque()
        self.exit: Exit | None = None
        self.actions: list[Action] = []
        self.ledger = Ledger()
        if listening:
            self.feed(Subscribed(b""))

    # --- events ---------------------------------------------------------------------------------

    def feed(self, event: Event) -> list[Action]:
        """Let the core decide about one event; carry out what it orders.

        Returns:
            the actions, without what is lent to the worker: see `tray`.
        """
        if isinstance(event, Received):
            self.ledger.received(event.request)
        actions = self.core.decide(event, self.now)
        for action in actions:
            self.ledger.take(action)
            self._carry_out(action)
        if isinstance(event, Subscribed):
            self.ledger.somebody_listens = True
        self.actions += actions
        return [action for action in actions if not isinstance(action, LendToWorker)]

    def settle(self) -> list[Action]:
        """Let everything happen that was ordered and needs no decision of the test."""
        actions: list[Action] = []
        while self.due:
            actions += self.feed(self.due.popleft())
        return actions

    def pass_time(self, seconds: float) -> list[Action]:
        """Go on in time, stopping at each deadline that the core names, as the loop does."""
        end = self.now + seconds
        actions: list[Action] = []
        while (deadline_s := self.core.deadline_s()) is not None and deadline_s <= end:
            self.now = max(self.now, deadline_s)
            actions += self.feed(Ticked())
            again = self.core.deadline_s()
            assert again is None or again > self.now, "the core would be ticked for ever"
        self.now = end
        return actions

    # --- clients --------------------------------------------------------------------------------

    def send(self, request: Request) -> list[Action]:
        """Let a client send a request."""
        return self.feed(Received(request))

    def execute(self, msg_id: str = "m1", code: str = "1", **more: Any) -> list[Action]:  # noqa: ANN401
        """Let a client send a cell; ``more`` goes to `make_request`, ``content`` is added to."""
        content = {"code": code, **more.pop("content", {})}
        return self.send(make_request(msg_id=msg_id, content=content, **more))

    def control(self, msg_type: str, msg_id: str, /, **content: Any) -> list[Action]:  # noqa: ANN401
        """Let a client send a request on control."""
        request = make_request(msg_type, msg_id, channel=SocketID.control, content=content)
        return self.send(request)

    def interrupt(self, msg_id: str | None = None, *, number: int = 1) -> list[str]:
        """Let a client interrupt; give in words what was done beside the answer."""
        content = {} if msg_id is None else {"msg_id": msg_id}
        actions = tell(self.control("interrupt_request", f"i{number}", **content))
        answer = [f"i{number} busy", f"i{number} interrupt_reply ok", f"i{number} idle"]
        assert [line for line in actions if line in answer] == answer
        return [line for line in actions if line not in (*answer, "still busy")]

    # --- the worker -----------------------------------------------------------------------------

    def ready(self) -> list[Action]:
        """Let the worker say that its shell is there."""
        assert self.process == "starting"
        self.process = "ready"
        return self.say(READY)

    def say(self, message: ToBroker) -> list[Action]:
        """Let the worker write a message."""
        self.has_asked |= isinstance(message, AskExit | AskRestart | AskRewind | SetConcurrencyMode)
        return self.feed(FromWorker(message))

    def finish(self, msg_id: str, content: bytes | None = None) -> list[Action]:
        """Let a job end well; a worker that has taken the next one starts it."""
        job = self.job_of(msg_id)
        return self.end(Finished(job, Outcome.ok, content or replies.OK))

    def fail(
        self, msg_id: str, *, stop_on_error: bool = True, content: bytes | None = None
    ) -> list[Action]:
        """Let a job end with an error."""
        job = self.job_of(msg_id)
        return self.end(Finished(job, Outcome.error, content or BOOM, stop_on_error=stop_on_error))

    def end(self, message: Finished) -> list[Action]:
        """Let a job end; a worker that has taken the next one starts it."""
        ended = self.jobs.pop(message.job, None)
        taken = self.taken
        if taken is None or ended is None or not _is_main_cell(ended):
            return self.say(message)
        assert not message.stop_on_error, "a worker takes nothing behind such an error"
        self.taken = None
        self._start(taken)
        return self.say(structs.replace(message, took_next=True))

    def take_next(self) -> bool:
        """Let the worker take what lies in the tray, as the cell before it has ended.

        One that has asked for something behind its cell takes nothing, and an idle one neither.
        """
        if not self.has_asked and any(map(_is_main_cell, self.jobs.values())):
            self.taken, self.tray = self.tray, None
        return self.taken is not None

    def print(self, msg_id: str, text: str) -> list[Action]:
        """Let a job write to stdout."""
        return self.say(Stream(self.job_of(msg_id), StreamName.stdout, text))

    def publish(self, msg_id: str, msg_type: str, content: bytes) -> list[Action]:
        """Let a job publish a message."""
        return self.say(Publish(self.job_of(msg_id), msg_type, content))

    def ask_input(self, msg_id: str, number: int, prompt: str = "? ") -> list[Action]:
        """Let a job ask for input."""
        job = self.job_of(msg_id)
        self.questions[number] = job
        return self.say(InputRequest(job, number, prompt, password=False))

    def die(
        self,
        signal_number: int | None = 11,
        exit_code: int | None = None,
        *,
        stack: str = "",
        last_words: str = "",
        reason: Reason | None = None,
    ) -> list[Action]:
        """Let the worker's process end."""
        self.process = "none"
        self.doomed = False
        self.tray = self.taken = None
        self.jobs.clear()
        self.questions.clear()
        return self.feed(WorkerExited(exit_code, signal_number, stack, last_words, reason))

    def start(self) -> None:
        """Let an ordered start of a worker happen."""
        assert self.to_spawn == 1, "nobody has ordered a worker"
        assert self.process == "none", "there is a worker"
        self.to_spawn = 0
        self.process = "starting"

    def renew(self) -> list[Action]:
        """Let the next worker start and become ready."""
        self.start()
        return self.ready()

    def snapshot(self, number: int, *, name: str = "", **more: Any) -> list[Action]:  # noqa: ANN401
        """Let the worker take a snapshot, and its copy report; ``more`` is of its `CopyReady`."""
        self.begin_snapshot(number, name=name)
        self.say(Snapshotted(number, 0.001, 10, 1))
        return self.copy_appears(number, name=name, **more)

    def begin_snapshot(self, number: int, *, name: str = "", deadline_s: float = 2.0) -> None:
        """Let the worker fork."""
        self.say(Snapshotting(number, name, deadline_s))

    def copy_appears(self, number: int, **more: Any) -> list[Action]:  # noqa: ANN401
        """Let a copy report."""
        self.copies.add(number)
        return self.feed(CopyAppeared(make_word(number, **more)))

    def copy_leaves(self, number: int) -> None:
        """Take note that one process of a copy is no copy any more."""
        (self.spares if number in self.spares else self.copies).remove(number)

    def job_of(self, msg_id: str) -> int:
        """Give the number of the running job of a request."""
        return next(job for job, run in self.jobs.items() if _msg_id(run.header) == msg_id)

    # --- orders ---------------------------------------------------------------------------------

    def _empty_tray(self) -> bool:
        """Take back what is lent."""
        was_there, self.tray = self.tray is not None, None
        return was_there

    def _start(self, run: Run) -> None:
        assert self.process == "ready", "a job for a worker that is not there"
        assert run.job not in self.started, "a job that is run twice"
        self.started.add(run.job)
        if _is_main_cell(run):
            self.has_asked = False
        self.jobs[run.job] = run

    def _carry_out(self, action: Action) -> None:
        match action:
            case SendToWorker(_, Run() as run):
                self._start(run)
            case LendToWorker(run):
                assert self.tray is None, "lent before the last one was taken"
                self.tray = run
            case SendToWorker(_, InputReply(request=number)):
                self.questions.pop(number, None)
            case KillWorker() | StopWorker():
                self.doomed = self.process != "none"
            case SpawnWorker(_, donor):
                self.to_spawn += 1
                if donor is not None:
                    self.copy_leaves(donor)
            case PromoteCopy(number):
                assert self.process == "none", "a copy promoted beside a worker"
                self.copy_leaves(number)
                self.process = "starting"
            case DropCopies(numbers):
                self.copies.difference_update(numbers)
                self.spares.difference_update(numbers)
            case TakeStack(number):
                self.due.append(StackTaken("File x, line 3", (number,)))
            case MeasureUsage(job):
                self.due.append(Measured(job, replies.OK))
            case Exit():
                assert self.exit is None, "exited twice"
                self.exit = action
            case (
                SendToWorker()
                | SignalWorker()
                | AskClient()
                | PublishToClients()
                | ReplyToClient()
                | Log()
            ):
                pass


def _is_main_cell(run: Run) -> bool:
    return run.mode is RunMode.queue and run.kind is MsgType.execute_request and not run.subshell


def _msg_id(header: bytes) -> str:
    return str(json.loads(header)["msg_id"])
