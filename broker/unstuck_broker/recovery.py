"""What happens when the worker dies, is killed, is restarted, or the kernel is shut down.

The order is what frontends need: first each running request gets its error reply and idle, then what is
queued behind a failed cell its aborted reply and idle, then comms are closed, and only when nothing waits any
more `status: restarting` goes out, since JupyterLab throws away all pending requests when it sees that.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from unstuck_broker import replies
from unstuck_broker.actions import Exit, KillWorker, PublishToClients, StopWorker
from unstuck_broker.lifecycle import E, S

if TYPE_CHECKING:
    from unstuck_broker.core import Core
    from unstuck_broker.events import WorkerExited
    from unstuck_broker.job import Job
    from unstuck_broker.wire import Request

_LONGEST_BACKOFF_S = 30.0


class Recovery:
    """Gets the kernel from one worker to the next, or to its end."""

    def __init__(self, core: Core) -> None:
        """Recover ``core``."""
        self._core = core
        self.announced = False
        """The variables are lost and the frontends have not been told: `pump` has work."""
        self._deaths = 0
        """Workers in a row that died without running a job."""
        self._failure = ""
        """What a worker that could not start said about it."""
        self._stopping_for_restart = False
        self._after_job: str = ""
        """What the running cell asked for: "exit" or "restart"."""

    # --- death ------------------------------------------------------------------------------------

    def kill(self, why: str) -> None:
        """Have the worker killed; the rest follows when it is dead."""
        if not self._core.life.ended:
            self._core.life.advance(E.KILL_SENT)
            self._core.out.order(KillWorker(why))

    def worker_exited(self, event: WorkerExited, now: float) -> None:
        """Answer what it ran, close its comms, and start the next one."""
        core = self._core
        before = core.life.state
        if core.life.advance(E.EXITED) is S.DEAD:
            return
        unready = before in (S.STARTING, S.RECOVERING)
        in_vain = unready or (before is S.READY)
        self._deaths = self._deaths + 1 if in_vain else 0
        delay_s = self._backoff_s()
        cause = self._failure or describe(event)
        self._failure = ""
        core.out.log(f"worker died state={before.value} cause={cause!r} next_in_s={delay_s:g}")
        self._answer_running(event, cause)
        if unready:
            self._answer_waiting(cause, delay_s, event)
        self._close_comms()
        core.forget_worker(now)
        self.announced = self.announced or before is not S.STARTING
        core.spawn(delay_s)

    def _backoff_s(self) -> float:
        """Give the delay before the next start: none at first, then doubling."""
        if self._deaths <= 1:
            return 0.0
        return min(_LONGEST_BACKOFF_S, 0.5 * 2.0 ** (self._deaths - 2))

    def _answer_running(self, event: WorkerExited, cause: str) -> None:
        core = self._core
        core.out.flush_all()
        failed: list[tuple[Job, int]] = []
        for job in sorted(core.running.values(), key=lambda job: job.number):
            horizon = core.interrupts.horizon(job, core.last_number)
            if job.is_cell:
                ename, evalue = self._name_error(job, event, cause)
                core.out.cell_error(job, ename, evalue, _traceback(ename, evalue, event))
                failed.append((job, horizon))
            else:
                core.out.reply(job.request, replies.unanswered(job.kind, job.request))
            core.conclude(job)
        for job, horizon in failed:
            if job.stop_on_error and (job.queued or job.blocks_channel):
                core.abort_queued(job, horizon)

    def _name_error(self, job: Job, event: WorkerExited, cause: str) -> tuple[str, str]:
        lost = "all variables were lost"
        if job.timed_out:
            return "TimeoutError", f"the cell ran longer than {job.timeout_s:g} s; {cause}; {lost}"
        if "interrupt" in event.why:
            return "KeyboardInterrupt", f"{cause}; {lost}"
        return "WorkerDied", f"{cause}; {lost}"

    def _answer_waiting(self, cause: str, delay_s: float, event: WorkerExited) -> None:
        """Answer what waits for a worker that cannot start; the reply says when the next try is."""
        core = self._core
        again = f"; the next start is in {delay_s:g} s" if delay_s else "; it is started again"
        evalue = f"the worker could not start: {cause}{again}"
        for job in core.backlog.take(lambda _job: True):
            core.out.status(replies.BUSY, job.request.header_json)
            if job.is_cell:
                core.out.cell_error(
                    job, "WorkerDied", evalue, _traceback("WorkerDied", evalue, event)
                )
            else:
                core.out.reply(job.request, replies.unanswered(job.kind, job.request))
            core.out.status(replies.IDLE, job.request.header_json)

    def _close_comms(self) -> None:
        out = self._core.out
        for comm_id in self._core.comms.close_all():
            content = replies.encode({"comm_id": comm_id, "data": {}})
            topic = f"comm-{comm_id}".encode()
            out.publish(PublishToClients("comm_close", content, topic=topic))

    # --- the next worker --------------------------------------------------------------------------

    def worker_failed(self, reason: str, traceback: str) -> None:
        """Keep what a worker that cannot start says; its exit follows."""
        self._failure = f"{reason}\n{traceback}".rstrip()

    def worker_ready(self) -> None:
        """Let requests run."""
        core = self._core
        recovering = core.life.state is S.RECOVERING
        core.life.advance(E.SHELL_READY)
        if recovering and not self.announced:
            core.out.status(replies.IDLE)

    def pump(self, now: float) -> None:
        """Tell frontends of the restart once no request waits any more."""
        core = self._core
        if core.running or not core.backlog.empty():
            return
        self.announced = False
        core.out.flush_all()
        core.out.status(replies.RESTARTING)
        core.out.status(replies.STARTING)
        if core.life.takes_jobs:
            core.out.status(replies.IDLE)

    # --- restart and shutdown ---------------------------------------------------------------------

    def ask_exit(self) -> None:
        """End the kernel after the running cell (``exit()`` in a cell)."""
        self._after_job = "exit"

    def ask_restart(self) -> None:
        """Restart in place after the running cell (``%restart``)."""
        self._after_job = "restart"

    def job_finished(self) -> None:
        """Do what the cell that has ended asked for."""
        self._deaths = 0
        after, self._after_job = self._after_job, ""
        if after == "exit":
            self.shutdown(restart=False)
        elif after == "restart":
            self.restart(None)

    def restart(self, request: Request | None) -> None:
        """Restart the worker in place: broker, ports and clients stay."""
        core = self._core
        self._end_all("KernelRestarted", "the kernel was restarted while this cell ran")
        if request is not None:
            core.out.answer(request, replies.OK)
        core.life.advance(E.RESTART_SENT)
        core.out.order(StopWorker(core.config.shutdown_grace_s))

    def shutdown(self, *, restart: bool, request: Request | None = None) -> None:
        """Answer everything and end; this goes before any ladder."""
        core = self._core
        if core.life.ended:
            return
        if request is not None:
            content = replies.encode({"status": "ok", "restart": restart})
            core.out.answer(request, content)
            parent = request.header_json
            core.out.publish(PublishToClients("shutdown_reply", content, parent))
        self._end_all("KernelStopped", "the kernel was shut down while this cell ran")
        core.life.advance(E.STOP_SENT)
        core.served.abort_waiting()
        core.out.flush_all()
        core.out.somebody_listens()
        core.out.order(Exit(restart))

    def _end_all(self, ename: str, evalue: str) -> None:
        """Answer each request that runs or waits."""
        core = self._core
        core.out.flush_all()
        for job in sorted(core.running.values(), key=lambda job: job.number):
            core.out.cell_error(job, ename, evalue, [f"{ename}: {evalue}"])
            core.conclude(job)
        core.abort_waiting()


def describe(event: WorkerExited) -> str:
    """Say in words how the worker ended."""
    if event.signal_number is not None:
        try:
            name = signal.Signals(event.signal_number).name
        except ValueError:
            name = f"signal {event.signal_number}"
        how = f"the worker died by {name}"
    else:
        how = f"the worker ended with exit code {event.exit_code}"
    return f"{event.why}: {how}" if event.why else how


def _traceback(ename: str, evalue: str, event: WorkerExited) -> list[str]:
    """Build the traceback of a reply: the stack that faulthandler wrote, and the last words on fd 2."""
    parts = [f"{ename}: {evalue}"]
    if event.stack:
        parts.append(event.stack)
    if event.last_words:
        parts.append(f"The last lines that it wrote:\n{event.last_words}")
    return parts
