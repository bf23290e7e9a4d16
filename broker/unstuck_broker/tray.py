"""The tray: the next cell lies where the worker can take it, so that neither waits for the other.

While a cell of the main queue runs, the one behind it is lent: its order lies in a socket of which
worker and broker both hold the reading end, and whoever reads it has it. A worker whose cell has
ended well takes it, says so with the end of that cell (`Finished.took_next`), and goes on at once.
For everything else that happens to the queue the job is taken back first: nothing that was aborted
starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck_broker.actions import LendToWorker
from unstuck_broker.lifecycle import S

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck_broker.core import Core
    from unstuck_broker.job import Job

LARGEST_BYTES = 32 << 10
"""Of a job that is lent; a socket takes one message as a whole."""


class Tray:
    """What is lent to the worker: one job at most."""

    def __init__(self, core: Core) -> None:
        """Lend the jobs of the main queue of ``core``."""
        self._core = core
        self.read: Callable[[], bool] = lambda: True
        """Empty the tray; False where the worker was first. The core's one question to the world,
        answered without a wait."""

    def lend(self) -> None:
        """Lend the job that is next, if the one that runs may be followed by it at once."""
        core, queue = self._core, self._core.backlog.main
        running = queue.running
        if running is None or queue.lent is not None or not queue.waiting:
            return
        if core.life.state is S.BUSY and _may_lead(running) and _may_follow(queue.waiting[0]):
            core.out.order(LendToWorker(queue.lend().run()))

    def job_ended(self, job: Job, *, took_next: bool) -> None:
        """Have the job in the tray wait again, where the worker has not taken it."""
        queue = self._core.backlog.main
        if queue.running is job and queue.lent is not None:
            if took_next:
                queue.lent.is_with_worker = True
            else:
                self.read()
                queue.take_back()

    def settle(self) -> None:
        """Say who has the job, where the one before it is over in some other way than its end."""
        queue = self._core.backlog.main
        if queue.running is not None or queue.lent is None or queue.lent.is_with_worker:
            return
        if self.read():
            queue.take_back()
        else:
            queue.lent.is_with_worker = True

    def take_back(self) -> None:
        """Have the job in the tray wait again; one that the worker has taken runs next."""
        queue = self._core.backlog.main
        if queue.lent is not None and self.read():
            queue.take_back()

    def has_moved_on(self, job: Job) -> bool:
        """Tell whether the worker has ended a job and taken the next, and we have not heard it."""
        queue = self._core.backlog.main
        if queue.running is not job or queue.lent is None:
            return False
        self.take_back()  # Else `lend` puts it there again, at the end of this turn.
        return queue.lent is not None

    def lose(self) -> None:
        """Have the job wait again: there is no worker that could run it."""
        self._core.backlog.main.take_back()


def _may_lead(job: Job) -> bool:
    """Tell whether the end of a job leaves nothing to decide about the next."""
    return job.timeout_s is None


def _may_follow(job: Job) -> bool:
    return job.is_cell and _run_bytes(job) <= LARGEST_BYTES


def _run_bytes(job: Job) -> int:
    """Count what the order for a job takes up, but for a few bytes around each part."""
    request = job.request
    parts = (
        request.header_json,
        request.parent_json,
        request.metadata_json,
        request.content_json,
        *request.idents,
        *request.buffers,
    )
    return sum(map(len, parts))
