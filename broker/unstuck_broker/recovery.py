"""What happens when the worker dies, is killed, is restarted, or the kernel is shut down.

The order is what frontends need: first each running request gets its error reply and idle, then
what is queued behind a failed cell its aborted reply and idle, then comms are closed, and only when
nothing waits any more `status: restarting` goes out, since JupyterLab throws away all pending
requests when it sees that.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Literal

from unstuck.typing import KernelConcurrencyMode, MsgType
from unstuck_broker import replies
from unstuck_broker.actions import Exit, KillWorker, PublishToClients, SpawnWorker, StopWorker
from unstuck_broker.lifecycle import E, S
from unstuck_broker.outbox import NO_PARENT
from unstuck_broker.reason import RESTART, error_name
from unstuck_broker.revival import Loss
from unstuck_broker.stacktext import shorten

if TYPE_CHECKING:
    from unstuck_broker.core import Core
    from unstuck_broker.events import WorkerExited
    from unstuck_broker.job import Job
    from unstuck_broker.reason import Reason
    from unstuck_broker.wire import Request

_LONGEST_BACKOFF_S = 30.0
_MICROSECONDS = len("2026-11-30T03:00:00.123456")
_Wish = Literal["exit", "restart"]


class Recovery:
    """Gets the kernel from one worker to the next, or to its end."""

    def __init__(self, core: Core) -> None:
        """Recover ``core``."""
        self._core = core
        self._reached = S.STARTING
        """How far the present worker has come at most: STARTING, READY or BUSY."""
        self._deaths = 0
        """Workers in a row that died without running a job."""
        self._lost = False
        """The variables are lost and the frontends have not been told: `settle` has work."""
        self._failure = ""
        """What a worker that could not start said about it."""
        self.restarts = 0
        """How often a restart in place was asked for."""
        self.relaunches = 0
        """How often of these by a shutdown request: the launcher counts along."""
        self._restarter = NO_PARENT
        """The shutdown request that was taken for a restart; NO_PARENT otherwise."""
        self._after: tuple[int, _Wish] | None = None
        """What a running cell, by its job, has asked for after its reply."""

    # --- death ------------------------------------------------------------------------------------

    def kill(self, reason: Reason) -> None:
        """Have the worker killed; the rest follows when it is dead."""
        if not self._core.life.ended:
            self._core.life.advance(E.KILL_SENT)
            self._core.out.order(KillWorker(reason))

    def worker_exited(self, event: WorkerExited, now: float) -> None:
        """Bring a copy to life; without one answer what it ran, and start the next one."""
        core = self._core
        if core.life.ended:
            if core.life.state is S.STOPPING:
                core.life.advance(E.EXITED)
            return
        core.tray.lose()
        before = core.life.state
        core.life.advance(E.EXITED)
        self._deaths = 0 if self._reached is S.BUSY else self._deaths + 1
        delay_s = self._backoff_s()
        cause = self._failure or describe(event)
        core.out.log(f"worker died state={before.value} cause={cause!r} next_in_s={delay_s:g}")
        core.questions.forget_all()
        core.hangs.forget()
        core.worker_pid = None
        self._failure = ""
        reached, self._reached = self._reached, S.STARTING
        after, self._after = self._after, None
        is_exit = after is not None and after[1] == "exit"
        attempt = core.revival.attempt
        core.out.flush_all()
        if not is_exit and core.revival.begin(event, cause, self._losses(event, cause), now):
            core.count = core.revival.last_cell + 1
            self._answer_others(cause)
            return
        core.rewind.forget()
        losses = self._losses(event, cause)
        if attempt is not None:
            known = {loss.job: loss for loss in attempt.losses}
            losses = [known.get(loss.job, loss) for loss in losses]
            event, reached = attempt.event, S.BUSY
        self.end_lost(losses, event, cause, "all variables were lost")
        if reached is S.STARTING:
            self._answer_waiting(event, cause, delay_s)
        else:
            self._lost = True
        self.close_comms()
        core.concurrency_mode = KernelConcurrencyMode.default
        core.count = 1
        if is_exit:
            self.shutdown(restart=False)
        else:
            core.out.order(SpawnWorker(delay_s))

    def _backoff_s(self) -> float:
        """Give the delay before the next start: none at first, then doubling."""
        if self._deaths <= 1:
            return 0.0
        # The exponent is bounded, too: a kernel may be left in such a loop for months.
        return min(_LONGEST_BACKOFF_S, 0.5 * 2.0 ** min(self._deaths - 2, 10))

    def _losses(self, event: WorkerExited, cause: str) -> list[Loss]:
        """List the cells that die with the worker."""
        core = self._core
        held = core.rewind.held_job
        losses: list[Loss] = []
        for job in self._running():
            if job.is_cell and job.number != held:
                ename, why = self._name_error(job, cause, event.reason)
                losses.append(Loss(job.number, ename, why, core.interrupts.horizon(job)))
        return losses

    def _answer_others(self, cause: str) -> None:
        """Answer what is no cell: nothing that comes back changes this."""
        for job in self._running():
            if not job.is_cell:
                self._leave_unanswered(job, cause)

    def end_lost(self, losses: list[Loss], event: WorkerExited, cause: str, state: str) -> None:
        """Answer all that died with the worker; ``state`` says what became of the variables."""
        core = self._core
        known = {loss.job: loss for loss in losses}
        failed: list[tuple[Job, int]] = []
        for job in self._running():
            loss = known.get(job.number)
            if not job.is_cell:
                self._leave_unanswered(job, cause)
            elif loss is not None:
                evalue = f"{loss.cause}; {state}"
                core.fail(job, loss.ename, evalue, _traceback(loss.ename, evalue, event))
                core.conclude(job)
                failed.append((job, loss.horizon))
        for job, horizon in failed:
            if job.stop_on_error:
                core.waiting.abort_behind(job, horizon)

    def _leave_unanswered(self, job: Job, cause: str) -> None:
        self._core.out.reply(job.request, replies.unanswered(job.request, cause))
        self._core.conclude(job)

    def _running(self) -> list[Job]:
        return sorted(self._core.running.values(), key=lambda job: job.number)

    def _name_error(self, job: Job, cause: str, reason: Reason | None) -> tuple[str, str]:
        if job.timed_out:
            return "TimeoutError", f"the cell ran longer than {job.timeout_s:g} s; {cause}"
        if self._core.interrupts.gave_up(job):
            return "KeyboardInterrupt", cause
        return error_name(reason), cause

    def _answer_waiting(self, event: WorkerExited, cause: str, delay_s: float) -> None:
        """Answer what waits for a worker that cannot start; the reply says when the next try is."""
        out = self._core.out
        again = f"; the next start is in {delay_s:g} s" if delay_s else "; it is started again"
        evalue = f"the worker could not start: {cause}{again}"
        traceback = _traceback("WorkerDied", evalue, event)
        for waiting in self._core.waiting.take():
            request = waiting.request
            out.status(replies.BUSY, request.header_json)
            if request.kind is MsgType.execute_request:
                out.error_output(request, "WorkerDied", evalue, traceback)
                out.reply(request, replies.error("WorkerDied", evalue, traceback))
            else:
                out.reply(request, replies.unanswered(request, evalue))
            out.status(replies.IDLE, request.header_json)

    def close_comms(self, keep: frozenset[str] = frozenset()) -> None:
        """Close the comms whose other end has died with the worker."""
        out = self._core.out
        for comm_id in self._core.comms.close_all(keep):
            content = replies.encode({"comm_id": comm_id, "data": {}})
            topic = f"comm-{comm_id}".encode()
            out.publish(PublishToClients("comm_close", content, topic=topic))

    # --- the next worker --------------------------------------------------------------------------

    def worker_failed(self, reason: str, traceback: str) -> None:
        """Keep what a worker that cannot start says; its exit follows."""
        if self._reached is S.STARTING:
            self._failure = f"{reason}\n{traceback}".rstrip()

    def worker_ready(self, now: float) -> None:
        """Let requests run; a worker that is being killed or stopped may still have said so."""
        core = self._core
        before = core.life.state
        if before not in (S.STARTING, S.RECOVERING) or core.revival.is_given_up:
            return
        core.last_control.forgotten()
        is_revived = core.revival.worker_ready(now)
        core.life.advance(E.SHELL_READY)
        self._reached = S.READY
        if before is S.RECOVERING and not self._lost and not is_revived:
            core.out.status(replies.IDLE)

    def job_started(self) -> None:
        """Take note that the worker is of use: its end is no failed start."""
        self._reached = S.BUSY

    def settle(self) -> None:
        """Tell frontends of the restart once no request waits any more."""
        core = self._core
        if not self._lost or core.pending:
            return
        self._lost = False
        core.out.flush_all()
        core.out.status(replies.RESTARTING, self._restarter)
        self._restarter = NO_PARENT
        core.out.status(replies.STARTING)
        if core.life.takes_jobs:
            core.out.status(replies.IDLE)

    # --- restart and shutdown ---------------------------------------------------------------------

    def ask(self, wish: _Wish, number: int) -> None:
        """Do what a cell asks for (``exit()``, ``%restart``) after its reply."""
        if not self._core.life.takes_jobs:
            return
        if number in self._core.running:
            self._after = (number, wish)
        else:
            self._fulfil(wish)

    def job_finished(self, job: Job) -> None:
        """Do what the cell that has ended asked for."""
        if self._after is not None and self._after[0] == job.number:
            wish = self._after[1]
            self._after = None
            self._fulfil(wish)

    def _fulfil(self, wish: _Wish) -> None:
        if wish == "exit":
            self.shutdown(restart=False)
        else:
            self.restart(None)

    def restart_for(self, request: Request) -> None:
        """Restart in place for a launcher that asks for a shutdown and starts the kernel again.

        JupyterLab takes a ``restarting`` that nobody has asked for as a crash, and says so in a
        dialog; with a shutdown request as its parent it does not.
        """
        out = self._core.out
        content = replies.encode({"status": "ok", "restart": True})
        out.answer(request, content)
        if _is_older(request.header.date, self._core.facts.started_at):
            # The broker before us hung, and zmq has kept its request for who has its ports now.
            out.log("ignored msg_type=shutdown_request why='it is older than this kernel'")
            return
        out.publish(PublishToClients("shutdown_reply", content, request.header_json))
        self.restart(None)
        self.relaunches += 1
        self._restarter = request.header_json

    def restart(self, request: Request | None) -> None:
        """Restart the worker in place: broker, ports and clients stay."""
        core = self._core
        self.restarts += 1
        self._restarter = NO_PARENT
        self._end_all("KernelRestarted", "the kernel was restarted while this ran")
        if request is not None:
            core.out.answer(request, replies.OK)
        before = core.life.state
        core.life.advance(E.RESTART_SENT)
        if before in (S.STARTING, S.RECOVERING):
            core.out.order(KillWorker(RESTART))  # No code of the user's runs that could end well.
        else:
            core.out.order(StopWorker(core.config.shutdown_grace_s))
        self._lost = self._lost or before is S.RECOVERING
        self._reached = S.BUSY  # Its end is wanted: no failed start.

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
        self._end_all("KernelStopped", "the kernel was shut down while this ran")
        self._lost = False
        core.life.advance(E.STOP_SENT)
        core.served.abort_waiting()
        core.out.flush_all()
        core.out.somebody_listens()
        core.out.order(Exit(restart))

    def _end_all(self, ename: str, evalue: str) -> None:
        """Answer each request that runs or waits for the worker; ladders end with their jobs."""
        core = self._core
        self._after = None
        core.rewind.forget()
        core.revival.leave()
        core.out.flush_all()
        core.start_taken()
        for job in self._running():
            if job.is_cell:
                core.fail(job, ename, evalue, [f"{ename}: {evalue}"])
            else:
                core.out.reply(job.request, replies.unanswered(job.request, evalue))
            core.conclude(job)
        core.waiting.abort_all()


def describe(event: WorkerExited) -> str:
    """Say in words how the worker ended."""
    if event.signal_number is not None:
        try:
            name = signal.Signals(event.signal_number).name
        except ValueError:
            name = f"signal {event.signal_number}"
        how = f"the worker died by {name}"
    elif event.exit_code is None and event.reason is not None:
        return event.reason.words  # There was no process.
    else:
        how = f"the worker ended with exit code {event.exit_code}"
    words = "" if event.reason is None else event.reason.words
    return f"{words}: {how}" if words else how


def _traceback(ename: str, evalue: str, event: WorkerExited) -> list[str]:
    """Build a reply's traceback: the stack that faulthandler wrote, and the last words on fd 2."""
    parts = [f"{ename}: {evalue}"]
    if event.stack:
        parts.append(shorten(event.stack))
    if event.last_words:
        parts.append(f"The last lines that it wrote:\n{event.last_words}")
    return parts


def _is_older(date: str, start: str) -> bool:
    """Say whether a date is before the start, where both are in UTC and of this machine.

    A launcher that restarts in place is: it holds our process.
    """
    is_utc = date.endswith(("Z", "+00:00")) and start.endswith(("Z", "+00:00"))
    return is_utc and date[:_MICROSECONDS] < start[:_MICROSECONDS]
