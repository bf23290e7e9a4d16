"""What running jobs put out, on its way to the clients: under its cell, within its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck_broker import replies
from unstuck_broker.actions import PublishToClients
from unstuck_broker.outbox import NO_PARENT

if TYPE_CHECKING:
    from unstuck.protocol import Publish, Stream
    from unstuck_broker.core import Core
    from unstuck_broker.events import PipeText
    from unstuck_broker.job import Job

_METERED = frozenset({"display_data", "update_display_data", "execute_result"})
"""What counts as output beside streams; a limit must not cut a cell's error, or its comms."""


class Relay:
    """Publishes the outputs of the worker."""

    def __init__(self, core: Core) -> None:
        """Relay for the jobs of ``core``."""
        self._core = core

    def stream(self, message: Stream, now: float) -> None:
        """Take text of a cell."""
        job = self._core.running.get(message.job)
        if job is not None and not job.meter.take(len(message.text)):
            return
        parent = _parent(job, message.parent_header)
        if parent == NO_PARENT:  # No cell shows it: an error in a start-up file, for one.
            self._core.out.log(f"worker wrote stream={message.name} text={message.text!r}")
        self._core.out.stream(parent, message.name, message.text, now)

    def pipe_text(self, event: PipeText, now: float) -> None:
        """Take text of C code or of a child process."""
        core = self._core
        parent = core.last_header if event.parent_header is None else event.parent_header
        job = next((job for job in core.running.values() if _is_header(job, parent)), None)
        if job is None or job.meter.take(len(event.text)):
            core.out.stream(parent, event.name, event.text, now)

    def publication(self, message: Publish) -> None:
        """Take a message for iopub."""
        core = self._core
        job = core.running.get(message.job)
        msg_type = message.msg_type
        if job is not None:
            if msg_type == "error" and job.timed_out:
                return  # The cell's KeyboardInterrupt was our timeout: its reply says so.
            if msg_type in _METERED and not job.meter.take(len(message.content)):
                return
        core.comms.watch(msg_type, message.content)
        core.out.publish(
            PublishToClients(
                msg_type,
                message.content,
                _parent(job, message.parent_header),
                message.metadata,
                message.topic,
                message.buffers,
            )
        )

    def note_cut_output(self, job: Job) -> None:
        """Say under a cell how much of its output is missing."""
        if job.meter.cut:
            limit = self._core.config.output_bytes_per_cell
            text = (
                f"\n[unstuck] {job.meter.cut:,} bytes of this cell's output were cut: "
                f"the limit output_bytes_per_cell is {limit:,}.\n"
            )
            self._core.out.note(job.request.header_json, replies.STDERR, text)


def _is_header(job: Job, header: bytes) -> bool:
    return job.request.header_json == header


def _parent(job: Job | None, parent_header: bytes) -> bytes:
    """Find the parent of an output: what the worker has kept, or the running job's header."""
    return parent_header or (NO_PARENT if job is None else job.request.header_json)
