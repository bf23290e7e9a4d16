"""What waits, in the backlog and behind the gate: how it is answered when it cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.typing import MsgType
from unstuck_broker import replies
from unstuck_broker.job import IN_WORKER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unstuck_broker.core import Core
    from unstuck_broker.gate import Arrival
    from unstuck_broker.job import Job


class Waiting:
    """Ends requests before they have run, and jobs that may not run longer."""

    def __init__(self, core: Core) -> None:
        """Look after what waits in ``core``."""
        self._core = core

    def over(self, job: Job) -> None:
        """Let go of what a job occupies, however it has ended."""
        self._core.timers.drop(job.number)
        self._core.gate.open(job)

    # --- aborts -----------------------------------------------------------------------------------

    def take(self) -> list[Job | Arrival]:
        """Take out all that waits for the worker, in the order of arrival.

        Requests behind the gate that the broker serves stay there: they are served when it opens.
        """
        core = self._core
        jobs = core.backlog.take(lambda _job: True)
        for job in jobs:
            self.over(job)
        held = core.gate.take(lambda arrival: arrival.request.kind in IN_WORKER)
        for arrival in held:
            core.timers.drop(arrival.number)
        return sorted([*jobs, *held], key=lambda waiting: waiting.number)

    def abort_all(self) -> None:
        """Abort everything that waits for the worker."""
        for waiting in self.take():
            self._core.out.answer(waiting.request, replies.ABORTED)

    def abort(self, jobs: Iterable[Job]) -> None:
        """Abort jobs that were taken out of the backlog."""
        for job in jobs:
            self._core.out.answer(job.request, replies.ABORTED)
            self.over(job)

    def abort_behind(self, job: Job, horizon: int) -> None:
        """Abort the cells that wait behind a failed one, those received up to ``horizon``.

        Behind a cell of a queue is its queue; behind a blocking one the main queue and the gate;
        behind a task or a thread nothing.
        """
        if not (job.is_cell and (job.queued or job.blocks_channel)):
            return

        def is_behind(other: Job) -> bool:
            in_queue = other.queued and other.subshell == job.subshell
            return other.is_cell and in_queue and other.number <= horizon

        def is_held(held: Arrival) -> bool:
            return held.request.kind is MsgType.execute_request and held.number <= horizon

        core = self._core
        core.tray.take_back()
        self.abort(core.backlog.take(is_behind))
        if job.closes_shell:
            for arrival in core.gate.take(is_held):
                core.out.answer(arrival.request, replies.ABORTED)

    # --- deadlines --------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Answer introspections that took too long; begin the ladder for cells that did."""
        core = self._core
        numbers = frozenset(core.timers.take_due(now))
        if not numbers:
            return
        late: list[Job | Arrival] = []
        for job in core.backlog.take(lambda job: job.number in numbers):
            self.over(job)
            late.append(job)
        late += core.gate.take(lambda held: held.number in numbers)
        for waiting in late:
            core.out.answer(waiting.request, replies.unanswered(waiting.request))
        for number in sorted(numbers & core.running.keys()):
            job = core.running[number]
            if job.is_cell:
                core.interrupts.time_out(job, now)
            else:
                core.out.reply(job.request, replies.unanswered(job.request))
                core.conclude(job)
