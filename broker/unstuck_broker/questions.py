"""``input()`` of cells: questions on their way to a client, and which answer is for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from unstuck.protocol import InputReply, InputRequest
from unstuck_broker import replies
from unstuck_broker.actions import AskClient, Lane, SendToWorker

if TYPE_CHECKING:
    from unstuck_broker.job import Job
    from unstuck_broker.outbox import Outbox
    from unstuck_broker.wire import Request


class _Answer(Struct):
    value: str


class _Parent(Struct):
    msg_id: str | None = None


_answer = msgspec.json.Decoder(_Answer)
_parent = msgspec.json.Decoder(_Parent)


class _Question:
    """One open `InputRequest`."""

    __slots__ = ("job", "msg_id", "number")

    def __init__(self, number: int, job: Job) -> None:
        self.number = number
        self.job = job
        self.msg_id: str | None = None
        """Of the input_request on stdin, once it was sent."""


class Questions:
    """The open questions of the worker, in the order in which they were asked."""

    def __init__(self, out: Outbox) -> None:
        """Ask through ``out``."""
        self._out = out
        self._open: dict[int, _Question] = {}

    def __len__(self) -> int:
        """Count the open questions."""
        return len(self._open)

    def is_open(self, number: int) -> bool:
        """Tell whether an answer is still wanted."""
        return number in self._open

    def ask(self, message: InputRequest, job: Job | None) -> None:
        """Ask the client of a job; withdraw the question of a job that is over."""
        if job is None:
            self._out.order(SendToWorker(Lane.thread, InputReply(message.request, None)))
            return
        self._open[message.request] = _Question(message.request, job)
        self._out.flush(job.request.header_json)
        content = replies.encode({"prompt": message.prompt, "password": message.password})
        self._out.order(AskClient(job.request, content, message.request))

    def asked(self, number: int, msg_id: str) -> None:
        """Take note of the message id under which a question went out."""
        if number in self._open:
            self._open[number].msg_id = msg_id

    def answer(self, request: Request) -> None:
        """Give an input_reply to the question that it is for."""
        try:
            value = _answer.decode(request.content_json).value
        except msgspec.MsgspecError as error:
            self._out.log(f"dropped channel=stdin why={f'malformed input_reply: {error}'!r}")
            return
        question = self._find(request) if request.header.msg_type == "input_reply" else None
        if question is None:
            self._out.log("dropped channel=stdin why='no cell of this client waits for input'")
            return
        del self._open[question.number]
        self._out.order(SendToWorker(Lane.thread, InputReply(question.number, value)))

    def _find(self, request: Request) -> _Question | None:
        """Find the question by the parent of its answer; a client that names none means the newest.

        JupyterLab names the input_request, others the execute_request, jupyter_client nothing.
        """
        mine = [q for q in self._open.values() if q.job.request.idents == request.idents]
        parent = _parent_id(request)
        named = [q for q in mine if parent in (q.msg_id, q.job.request.header.msg_id)]
        if parent is not None and not named:
            # An answer to a question that was withdrawn must not go to another one.
            mine = [q for q in mine if q.msg_id is None]
        found = named or mine
        return found[-1] if found else None

    def forget(self, job: Job) -> None:
        """Forget what a job has asked: it is over."""
        for number in [number for number, q in self._open.items() if q.job is job]:
            del self._open[number]

    def forget_all(self) -> None:
        """Forget everything: the worker is dead."""
        self._open.clear()


def _parent_id(request: Request) -> str | None:
    try:
        return _parent.decode(request.parent_json).msg_id
    except msgspec.MsgspecError:
        return None
