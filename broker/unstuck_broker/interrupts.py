"""Interrupts and cell timeouts: whom they aim at, and the ladder while it is climbed.

The ladder's rungs and delays are in `unstuck_broker.ladder`; here is what each rung does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.protocol import Interrupt
from unstuck_broker import replies
from unstuck_broker.actions import Lane, SendToWorker, SignalWorker, TakeStack
from unstuck_broker.ladder import Ladder, Rung, Why
from unstuck_broker.lifecycle import E, S

if TYPE_CHECKING:
    from unstuck_broker.core import Core
    from unstuck_broker.job import Job

_STACK_NUMBER = 0
"""Of the stack that the ladder orders; numbers from 1 on are those of `unstuck_broker.served`."""


class Interrupts:
    """At most one ladder at a time; later interrupts join it."""

    def __init__(self, core: Core) -> None:
        """Interrupt the jobs of ``core``."""
        self._core = core
        self._ladder: Ladder | None = None

    # --- beginning --------------------------------------------------------------------------------

    def interrupt(self, msg_id: str | None, now: float) -> None:
        """Interrupt one request by its message id, or what a user means by "interrupt".

        That is the cell of the main queue, with blocking ones; where none runs, every task and thread cell; where
        none of these runs either, whatever else occupies the main thread (a comm handler).
        """
        targets = self._targets(msg_id)
        if not targets:
            return
        if self._ladder is not None and self._ladder.jobs & targets:
            self._ladder.jobs |= targets
            if self._ladder.insist():
                self._kill()
            else:
                self._signal(self._ladder.jobs)
            return
        self._begin(targets, now)

    def time_out(self, job: Job, now: float) -> None:
        """Begin the ladder for a cell whose time is over; it ends in a kill at the grace."""
        job.timed_out = True
        self._begin({job.number}, now, timeout=True)

    def _begin(self, targets: set[int], now: float, *, timeout: bool = False) -> None:
        core = self._core
        why: Why = "timeout" if timeout else "interrupt"
        self._ladder = Ladder(targets, core.last_number, now, core.config, why)
        core.life.advance(E.INTERRUPT_SENT)
        self._signal(targets)

    def _targets(self, msg_id: str | None) -> set[int]:
        running = self._core.running.values()
        if msg_id is not None:
            return {job.number for job in running if job.request.header.msg_id == msg_id}
        cells = [job for job in running if job.is_cell]
        main = [job for job in cells if job.in_main_thread]
        others = [job for job in running if job.lane is Lane.main]
        return {job.number for job in main or cells or others}

    def _signal(self, numbers: set[int], *, hard: bool = False) -> None:
        """Send SIGINT for what runs in the main thread; name the other jobs to the lane thread."""
        core = self._core
        jobs = [core.running[number] for number in sorted(numbers)]
        main = [job for job in jobs if job.in_main_thread or not job.is_cell]
        named = [job.number for job in jobs if hard or job not in main]
        if named:
            core.out.order(SendToWorker(Lane.thread, Interrupt(named, hard)))
        if main:
            core.out.order(SignalWorker(tree=hard))

    # --- climbing ---------------------------------------------------------------------------------

    def deadline_s(self) -> float | None:
        """Name the monotonic time of the next rung."""
        return None if self._ladder is None else self._ladder.deadline_s()

    def tick(self, now: float) -> None:
        """Climb if it is time."""
        if self._ladder is None:
            return
        match self._ladder.climb(now):
            case Rung.RAISED:
                self._signal(self._ladder.jobs, hard=True)
            case Rung.ANNOUNCED:
                self._core.out.order(TakeStack(_STACK_NUMBER))
            case Rung.KILL:
                self._kill()
            case _:
                pass

    def _kill(self) -> None:
        ladder = self._ladder
        assert ladder is not None
        if ladder.why == "timeout":
            self._core.recovery.kill("the cell did not end within its timeout")
        else:
            self._core.recovery.kill("the cell did not react to its interrupt")

    def stack_taken(self, stack: str, numbers: tuple[int, ...], now: float) -> None:
        """Show under each cell where it still is, and what a second interrupt will do."""
        if self._ladder is None or _STACK_NUMBER not in numbers:
            return
        grace_s = self._core.config.interrupt_grace_s
        if self._ladder.policy == "never":
            then = "interrupt_policy is never: the worker is left alone"
        else:
            then = "interrupt again to kill it; all variables of this session will be lost"
        text = f"\n[unstuck] still running {grace_s:g} s after the interrupt; {then}.\n{stack}\n"
        for number in sorted(self._ladder.jobs):
            job = self._core.running[number]
            self._core.out.stream(job.request.header_json, replies.STDERR, text, now)

    # --- ending -----------------------------------------------------------------------------------

    def horizon(self, job: Job, last_number: int) -> int:
        """Give the number of the last job that an error of ``job`` may abort."""
        if self._ladder is not None and job.number in self._ladder.jobs:
            return self._ladder.horizon
        return last_number

    def job_ended(self, job: Job) -> None:
        """Leave the ladder when all that it aimed at has ended."""
        if self._ladder is None:
            return
        self._ladder.jobs.discard(job.number)
        if not self._ladder.jobs:
            self._ladder = None
            if self._core.life.state is S.INTERRUPTING:
                self._core.life.advance(E.TARGETS_ENDED)
