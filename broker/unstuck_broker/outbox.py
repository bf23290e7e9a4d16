"""What leaves the core in one turn: replies, publications and orders, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.protocol import StreamName
from unstuck.typing import MsgType, SocketID
from unstuck_broker import replies
from unstuck_broker.actions import Action, Log, PublishToClients, ReplyToClient
from unstuck_broker.outputs import Joined, StreamJoiner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unstuck.config import Config
    from unstuck_broker.job import Job
    from unstuck_broker.wire import Request

NO_PARENT = b"{}"


class Outbox:
    """Collects actions; joins stream text; holds what clients get until one listens on iopub.

    A client whose subscription arrives after the first status messages would wait for them for
    ever: the first replies and publications therefore wait, for a bounded time, for a subscriber.
    """

    def __init__(self, config: Config) -> None:
        """Start with nothing to say and nobody listening."""
        self._actions: list[Action] = []
        self._held: list[Action] | None = []
        self._hold_s = config.subscription_wait_s
        self._hold_until_s: float | None = None
        self._joiner = StreamJoiner(config.stream_flush_s, config.stream_bytes)
        self.says_idle = False
        """The last status that clients heard was idle, of whatever request."""

    def order(self, action: Action) -> None:
        """Give an order; those to the worker and the supervisor never wait."""
        self._actions.append(action)

    def log(self, line: str) -> None:
        """Write a line into the log."""
        self._actions.append(Log(line))

    def reply(
        self,
        request: Request,
        content: bytes,
        *,
        metadata: bytes = b"{}",
        buffers: Sequence[bytes | memoryview] = (),
    ) -> None:
        """Answer a request; what its cell has printed goes first."""
        self.flush(request.header_json)
        if replies.has_reply(request.header.msg_type):
            msg_type = replies.reply_type(request.header.msg_type)
            self._say(ReplyToClient(request, msg_type, content, metadata, buffers))

    def status(self, content: bytes, parent: bytes = NO_PARENT) -> None:
        """Publish a status: `replies.BUSY`, `replies.IDLE` ..."""
        self.says_idle = content is replies.IDLE
        self._say(PublishToClients("status", content, parent))

    def publish(self, message: PublishToClients) -> None:
        """Publish a message behind what its cell has printed."""
        self.flush(message.parent_header)
        self._say(message)

    def stream(self, parent: bytes, name: StreamName, text: str, now: float) -> None:
        """Publish text, joined with its neighbours."""
        self._say_joined(self._joiner.add(parent, name, text, now))

    def note(self, parent: bytes, name: StreamName, text: str) -> None:
        """Publish a line of ours at once, behind what its cell has printed."""
        self.flush(parent)
        self._say_joined([(parent, name, text)])

    def answer(self, request: Request, content: bytes) -> None:
        """Serve a request within this turn: busy, reply, idle."""
        self.status(replies.BUSY, request.header_json)
        self.reply(request, content)
        self.status(replies.IDLE, request.header_json)

    def refuse(self, request: Request, ename: str, evalue: str) -> None:
        """Answer a request that cannot be served or run with what is wrong about it."""
        self.log(f"refused msg_type={request.header.msg_type} why={evalue!r}")
        traceback = [f"{ename}: {evalue}"]
        self.status(replies.BUSY, request.header_json)
        if request.kind is MsgType.execute_request:
            # Frontends show what is published under a cell, not its reply.
            self.error_output(request, ename, evalue, traceback)
        self.reply(request, replies.error(ename, evalue, traceback))
        self.status(replies.IDLE, request.header_json)

    def cell_error(self, job: Job, ename: str, evalue: str, traceback: Sequence[str]) -> None:
        """End a cell with an error of ours: on iopub, then as its reply."""
        self.error_output(job.request, ename, evalue, traceback)
        count = {} if job.execution_count is None else {"execution_count": job.execution_count}
        self.reply(job.request, replies.error(ename, evalue, traceback, **count))

    def error_output(
        self, request: Request, ename: str, evalue: str, traceback: Sequence[str]
    ) -> None:
        """Show an error under a cell."""
        content = replies.error_output(ename, evalue, traceback)
        self.publish(PublishToClients("error", content, request.header_json))

    def flush(self, parent: bytes) -> None:
        """Send the stream text of one parent."""
        self._say_joined(self._joiner.flush(parent))

    def flush_all(self) -> None:
        """Send all stream text."""
        self._say_joined(self._joiner.flush_all())

    def somebody_listens(self) -> None:
        """Let go what was held for the first subscriber."""
        if self._held is not None:
            self._actions += self._held
            self._held = None

    def welcome(self, topic: bytes) -> None:
        """Greet a subscriber (Jupyter enhancement proposal 65)."""
        self.somebody_listens()
        content = replies.encode({"subscription": topic.decode("utf-8", "replace")})
        self.publish(PublishToClients("iopub_welcome", content, topic=topic))

    def begin_hold(self, now: float) -> None:
        """Start the time for which the first reply waits."""
        if self._held is not None and self._hold_until_s is None:
            self._hold_until_s = now + self._hold_s

    def tick(self, now: float) -> None:
        """Send what has waited long enough."""
        if self._held is not None and self._hold_until_s is not None and self._hold_until_s <= now:
            self.somebody_listens()
        self._say_joined(self._joiner.flush_due(now))

    def deadlines_s(self) -> list[float]:
        """Name the times at which `tick` has something to do."""
        hold = self._hold_until_s if self._held is not None else None
        return [at for at in (hold, self._joiner.deadline_s()) if at is not None]

    def take_answers(self) -> list[ReplyToClient]:
        """Hand over the answers on control: their clients need not wait for anything else."""
        answers: list[ReplyToClient] = []
        others: list[Action] = []
        for action in self._actions:
            match action:
                case ReplyToClient(request) if request.channel is SocketID.control:
                    answers.append(action)
                case _:
                    others.append(action)
        self._actions = others
        return answers

    def take(self) -> list[Action]:
        """Hand over the actions of this turn."""
        actions, self._actions = self._actions, []
        return actions

    def _say_joined(self, joined: list[Joined]) -> None:
        for parent, name, text in joined:
            topic = b"stream.stdout" if name is StreamName.stdout else b"stream.stderr"
            content = replies.stream(name, text)
            self._say(PublishToClients("stream", content, parent, topic=topic))

    def _say(self, action: Action) -> None:
        (self._actions if self._held is None else self._held).append(action)
