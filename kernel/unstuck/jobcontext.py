"""Which job the running code belongs to, and the kernel that it runs in.

Threads: `current_job` is a context variable, inherited by asyncio tasks, Caller calls, threads and
executors. Code without it (a thread that C code started) belongs to the queue cell that runs now.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from unstuck.typing import Job, Message, MsgType, RunMode, SocketID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unstuck.protocol import ControlParent, Run


class JobContext:
    """One request while it runs, and afterwards while something that it started is alive."""

    __slots__ = (
        "__weakref__",
        "_message",
        "allow_stdin",
        "buffers",
        "cell",
        "channel",
        "content",
        "execution_count",
        "finished",
        "header",
        "idents",
        "job",
        "kind",
        "metadata",
        "mode",
        "parent_header",
        "received_s",
        "subshell",
    )

    def __init__(
        self,
        job: int = 0,
        *,
        kind: MsgType = MsgType.execute_request,
        mode: RunMode = RunMode.queue,
        channel: SocketID = SocketID.shell,
        header: bytes = b"{}",
        parent_header: bytes = b"{}",
        metadata: bytes = b"{}",
        content: bytes = b"{}",
        idents: list[bytes] | None = None,
        received_s: float = 0.0,
        subshell: str | None = None,
        buffers: list[Any] | None = None,
    ) -> None:
        """Describe the job number ``job``; its JSON parts stay bytes until someone asks."""
        self.job = job
        self.kind = kind
        self.mode = mode
        self.channel = channel
        self.header = header
        self.parent_header = parent_header
        self.metadata = metadata
        self.content = content
        self.idents = idents or []
        self.received_s = received_s
        self.subshell = subshell
        self.buffers = buffers or []
        self.finished = False
        """The reply is out: messages carry the header, for the broker forgets the job."""
        self.execution_count: int | None = None
        self.allow_stdin = False
        self.cell: Any = None
        """The worker's own record of the running code, while an execute request runs."""
        self._message: Message | None = None

    @classmethod
    def of(cls, run: Run) -> JobContext:
        """Make the context of a request."""
        return cls(
            run.job,
            kind=run.kind,
            mode=run.mode,
            channel=run.channel,
            header=run.header,
            parent_header=run.parent_header,
            metadata=run.metadata,
            content=run.content,
            idents=run.idents,
            received_s=run.received_s,
            subshell=run.subshell,
            buffers=run.buffers,
        )

    @classmethod
    def of_control(cls, parent: ControlParent) -> JobContext:
        """Make the context of a request that runs elsewhere."""
        return cls(
            channel=SocketID.control,
            header=parent.header,
            parent_header=parent.parent_header,
            metadata=parent.metadata,
            content=parent.content,
            idents=parent.idents,
        )

    @classmethod
    def under(cls, parent: Mapping[str, Any]) -> JobContext:
        """Make a context whose output appears under ``parent``, a message or its header."""
        header = parent.get("header", parent)
        message = Message(
            header=header,
            parent_header=parent.get("parent_header", {}),
            metadata=parent.get("metadata", {}),
            content=parent.get("content", {}),
            buffers=parent.get("buffers", []),
        )
        context = cls(header=json.dumps(header, default=str).encode() if header else b"")
        context.message = message
        context.finished = True
        return context

    @property
    def message(self) -> Message:
        """The request as a Jupyter message, decoded at the first use; one object a job."""
        if self._message is None:
            decode = msgspec.json.decode
            self._message = Message(
                header=decode(self.header or b"{}"),
                parent_header=decode(self.parent_header or b"{}"),
                metadata=decode(self.metadata or b"{}"),
                content=decode(self.content or b"{}"),
                buffers=self.buffers,
            )
        return self._message

    @message.setter
    def message(self, message: Message) -> None:
        self._message = message

    def as_job(self) -> Job:
        """Give the job as ``utils.get_job()`` shows it."""
        return Job(
            msg=self.message,
            socket_id=self.channel,
            socket=None,
            ident=self.idents,
            received_time=self.received_s,
            run_mode=self.mode,
        )


current_job: ContextVar[JobContext | None] = ContextVar("unstuck_job", default=None)


class _Process:
    """What one worker process has one of."""

    kernel: Any = None
    queue_job: JobContext | None = None


def set_kernel(kernel: object) -> None:
    """Say which kernel user code runs in; called once, by the worker."""
    _Process.kernel = kernel


def get_kernel() -> Any:  # noqa: ANN401  (the facade lives in the worker, which this package never imports)
    """Give the kernel that this code runs in, or None outside of one."""
    return _Process.kernel


def set_queue_job(job: JobContext | None) -> None:
    """Say which cell of the main queue runs now; called by the worker's main thread."""
    _Process.queue_job = job


def get_context() -> JobContext | None:
    """Give the job of the running code; without one, the queue cell that runs now."""
    return current_job.get() or _Process.queue_job
