"""Run one job of any kind from its start to its end: exactly one `Finished`, whatever happens.

Threads: `run` is awaited in the thread that the job belongs to.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from unstuck.jobcontext import current_job, set_queue_job
from unstuck.protocol import Finished, Outcome
from unstuck.typing import MsgType
from unstuck_worker.content import encode_user
from unstuck_worker.execute import Execution, describe_error
from unstuck_worker.job import Reply, Steps
from unstuck_worker.spawns import Spawns

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.jobcontext import JobContext
    from unstuck_worker.interrupt import Interrupts
    from unstuck_worker.job import RunningJob, Stepping
    from unstuck_worker.lane import OutputLane
    from unstuck_worker.shell import UnstuckShell

log = logging.getLogger("unstuck.worker")

NOTHING = Reply(Outcome.ok, b"{}")
_COMMS = (MsgType.comm_open, MsgType.comm_msg, MsgType.comm_close)


class Runner:
    """What a job needs while it runs."""

    def __init__(
        self, shell: UnstuckShell, lane: OutputLane, interrupts: Interrupts, session: str
    ) -> None:
        """Run jobs in ``shell``; their ends go to ``lane``."""
        self.shell = shell
        self.interrupts = interrupts
        self._spawns = Spawns(lane.flush)
        self._spawns.watch()
        self.note_thread_cell: Callable[[], None] = lambda: None
        """Called when a cell has ended in a thread."""
        self.is_child = False
        """This is a forked process: a job's end is the end of the process."""
        self.take_next: Callable[[], bool] = lambda: False
        """Called where a cell of the main queue has ended so that the next may follow at once."""
        self._lane = lane
        self.session = session

    def forget_spawns(self) -> None:
        """Know of no process that a cell has started."""
        self._spawns.take()

    async def run(self, context: JobContext, stepping: Stepping | None = None) -> None:
        """Run a job in this thread; never raises."""
        current_job.set(context)
        running = self.interrupts.start(context, stepping)
        is_queue = self.interrupts.is_queue_job(running)
        if is_queue:
            set_queue_job(context)
            self._lane.has_asked = False
        try:
            running.attach()
            with running.scope:
                reply = await Steps(running, self._serve(running))
        except BaseException as error:  # noqa: BLE001  (the end of a job, whatever ended it)
            running.end()
            reply = running.reply or self._fail(running, error)
        self.end(running, reply)
        if is_queue:
            set_queue_job(None)

    def serve_now(self, context: JobContext) -> None:
        """Answer a request that needs no event loop, in this thread; never raises."""
        current_job.set(context)
        running = self.interrupts.start(context)
        try:
            running.enter()
            try:
                reply = self._introspect(context)
            finally:
                running.leave()
        except BaseException as error:  # noqa: BLE001  (the end of a job, whatever ended it)
            reply = describe_error(error)
        self.end(running, reply)

    def end(self, running: RunningJob, reply: Reply) -> None:
        """Send the end of a job, through whatever a user's signal handler raises meanwhile."""
        running.end()
        context = running.context
        if self.is_child:
            leave_child(reply)
        is_plain = not (reply.stop_on_error or reply.is_captured or self._lane.has_asked)
        leads = is_plain and self.interrupts.is_queue_job(running)
        while not context.finished:
            try:
                if self._spawns.take():
                    self._lane.renew_pipes(context)
                message = Finished(
                    context.job,
                    reply.outcome,
                    reply.content,
                    reply.metadata,
                    reply.stop_on_error,
                    counter=self.shell.counter,
                    is_captured=reply.is_captured,
                    took_next=leads and self.take_next(),
                )
                self._lane.finish(context, message)
            except BaseException:
                log.exception("event=finish job=%d", context.job)
        self.interrupts.forget(running)
        if context.kind is MsgType.execute_request and not self.interrupts.is_in_main(running):
            self.note_thread_cell()

    async def _serve(self, running: RunningJob) -> Reply:
        context = running.context
        if context.kind is MsgType.execute_request:
            return await Execution(self.shell, running, self.session).run()
        if context.kind in _COMMS:
            await self._handle_comm(context)
            running.reply = NOTHING
        else:
            running.reply = self._introspect(context)
        return running.reply

    def _fail(self, running: RunningJob, error: BaseException) -> Reply:
        if running.context.kind is MsgType.execute_request:
            return Execution(self.shell, running, self.session).fail(error)
        return describe_error(error)

    async def _handle_comm(self, context: JobContext) -> None:
        """Hand a comm message to its handler, which shows its own errors."""
        manager: Any = self.shell.kernel.comm_manager
        handled = getattr(manager, context.kind.value)(context.message)
        if inspect.isawaitable(handled):
            await handled

    def _introspect(self, context: JobContext) -> Reply:
        answer = _answers()[context.kind](self.shell, context.message["content"])
        outcome = Outcome.error if answer["status"] == "error" else Outcome.ok
        return Reply(outcome, encode_user(answer))


def _answers() -> dict[MsgType, Callable[[Any, Any], dict[str, Any]]]:
    """Load what answers introspection; most kernels run a cell before anybody asks."""
    from unstuck_worker import history, introspect  # noqa: PLC0415

    return {
        MsgType.complete_request: introspect.complete,
        MsgType.inspect_request: introspect.inspect,
        MsgType.is_complete_request: introspect.is_complete,
        MsgType.history_request: history.history,
    }


def leave_child(reply: Reply) -> None:
    """End a forked process that came to the end of its cell; the cell's reply is its parent's."""
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0 if reply.outcome is Outcome.ok else 1)
