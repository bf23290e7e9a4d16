"""Interrupts and cell timeouts: whom they aim at, and the ladders while they are climbed.

The ladder's rungs and delays are in `unstuck_broker.ladder`; here is what each rung does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.protocol import Interrupt
from unstuck_broker import reason, replies
from unstuck_broker.actions import Lane, SendToWorker, SignalWorker, TakeStack
from unstuck_broker.ladder import Ladder, Rung
from unstuck_broker.lifecycle import E, S
from unstuck_broker.stacktext import shorten

if TYPE_CHECKING:
    from unstuck_broker.core import Core
    from unstuck_broker.job import Job

_STACK_NUMBER = 0
"""Of the stack that ladders order; numbers from 1 on are those of `unstuck_broker.served`."""


class Interrupts:
    """The ladders that are being climbed; each running job is on one at most."""

    def __init__(self, core: Core) -> None:
        """Interrupt the jobs of ``core``."""
        self._core = core
        self._ladders: list[Ladder] = []

    # --- beginning --------------------------------------------------------------------------------

    def interrupt(self, msg_id: str | None, now: float) -> None:
        """Interrupt one request by its message id, or what a user means by "interrupt".

        That is the cell of the main queue, with blocking ones; where none runs, every task and
        thread cell; where none of these runs either, whatever else occupies the main thread (a comm
        handler).
        """
        core = self._core
        targets = self._targets(msg_id)
        if not targets or not core.life.takes_jobs:
            return
        known = [ladder for ladder in self._ladders if ladder.jobs & targets]
        insisted = [ladder for ladder in known if ladder.insist(core.last_number, now)]
        if insisted:
            self._kill(insisted[0])
            return
        fresh = targets.difference(*(ladder.jobs for ladder in known))
        if fresh:
            self._ladders.append(Ladder(fresh, core.last_number, now, core.config))
        core.life.advance(E.INTERRUPT_SENT)
        self._signal(targets)

    def time_out(self, job: Job, now: float) -> None:
        """Begin the ladder for a cell whose time is over; it ends in a kill at the grace."""
        core = self._core
        job.timed_out = True
        if not core.life.takes_jobs:
            return  # The worker is being killed already.
        horizon = self.horizon(job)
        self._leave(job)
        self._ladders.append(Ladder({job.number}, horizon, now, core.config, "timeout"))
        core.life.advance(E.INTERRUPT_SENT)
        self._signal({job.number})

    def _targets(self, msg_id: str | None) -> set[int]:
        running = self._core.running.values()
        if msg_id is not None:
            named = [job for job in running if job.request.header.msg_id == msg_id]
            return {job.number for job in named if not self._core.tray.has_moved_on(job)}
        cells = [job for job in running if job.is_cell]
        main = [job for job in cells if job.in_main_thread]
        others = [job for job in running if job.lane is Lane.main]
        return {job.number for job in main or cells or others}

    def _signal(self, numbers: set[int], *, hard: bool = False) -> None:
        """Send SIGINT for what occupies the main thread; name the other jobs to the lane thread."""
        core = self._core
        running = core.running.values()
        cells = {job.number for job in running if job.is_cell and job.in_main_thread}
        handlers = {job.number for job in running if job.lane is Lane.main and not job.is_cell}
        # SIGINT means the cell of the main thread, all of them; where there is none, a comm
        # handler.
        main = (cells if cells <= numbers else set[int]()) if cells else handlers & numbers
        named = sorted(numbers if hard else numbers - main)
        if named:
            core.out.order(SendToWorker(Lane.thread, Interrupt(named, hard)))
        if main:
            core.out.order(SignalWorker(tree=hard))

    # --- climbing ---------------------------------------------------------------------------------

    def deadline_s(self) -> float | None:
        """Name the monotonic time of the next rung."""
        if not self._ladders or not self._core.life.takes_jobs:
            return None
        named = [ladder.deadline_s() for ladder in self._ladders]
        return min((at for at in named if at is not None), default=None)

    def tick(self, now: float) -> None:
        """Climb where it is time; a worker that is being killed is left alone."""
        for ladder in list(self._ladders):
            is_safe = self._core.revival.is_safe(ladder.jobs)
            while self._core.life.takes_jobs:
                rung = ladder.climb(now, is_safe=is_safe)
                if rung is None:
                    break
                self._take(rung, ladder)

    def _take(self, rung: Rung, ladder: Ladder) -> None:
        match rung:
            case Rung.RAISED:
                self._signal(ladder.jobs, hard=True)
            case Rung.LOOKED:
                self._core.out.order(TakeStack(_STACK_NUMBER))
            case Rung.KILL:
                self._kill(ladder)
            case Rung.SIGNALLED | Rung.ANNOUNCED:
                pass

    def _kill(self, ladder: Ladder) -> None:
        if ladder.why == "timeout":
            self._core.recovery.kill(reason.TIMEOUT)
        else:
            self._core.recovery.kill(reason.INTERRUPT)

    def caught(self, number: int, now: float) -> None:
        """Leave a job alone for a while that is on its way out."""
        for ladder in self._ladders:
            if number in ladder.jobs:
                ladder.caught(number, now)

    def stack_taken(self, stack: str, numbers: tuple[int, ...], now: float) -> None:
        """Show under each cell where it still is, and what a second interrupt will do."""
        if _STACK_NUMBER not in numbers:
            return
        core = self._core
        for ladder in self._ladders:
            if not ladder.announce():
                continue
            if ladder.policy == "never":
                then = "interrupt_policy is never: the worker is left alone"
            else:
                then = f"interrupt again to kill it; {core.revival.prospect()}"
            after = f"{core.config.interrupt_grace_s:g} s after the interrupt"
            text = f"\n[unstuck] still running {after}; {then}.\n{shorten(stack)}\n"
            for number in sorted(ladder.jobs):
                parent = core.running[number].request.header_json
                core.out.stream(parent, replies.STDERR, text, now)

    # --- ending -----------------------------------------------------------------------------------

    def horizon(self, job: Job) -> int:
        """Give the number of the last request that an error of ``job`` may abort."""
        for ladder in self._ladders:
            if job.number in ladder.jobs:
                return ladder.horizon
        return self._core.last_number

    def gave_up(self, job: Job) -> bool:
        """Tell whether the worker was killed because this job did not react."""
        return any(job.number in ladder.jobs for ladder in self._ladders if ladder.at_the_end)

    def job_ended(self, job: Job) -> None:
        """Take a job off its ladder; the interrupt is over when no ladder is left."""
        self._leave(job)
        if not self._ladders and self._core.life.state is S.INTERRUPTING:
            self._core.life.advance(E.TARGETS_ENDED)

    def _leave(self, job: Job) -> None:
        for ladder in self._ladders:
            ladder.jobs.discard(job.number)
        self._ladders = [ladder for ladder in self._ladders if ladder.jobs]
