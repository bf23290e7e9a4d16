"""Jobs that wait: a queue for the main shell and one per subshell, and what needs a worker."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck_broker.job import Job


class Queue:
    """Jobs of one shell, in order, one at a time."""

    __slots__ = ("lent", "running", "waiting")

    def __init__(self) -> None:
        """Start empty."""
        self.running: Job | None = None
        self.lent: Job | None = None
        """The next one, where the worker can take it by itself (`unstuck_broker.tray`)."""
        self.waiting: deque[Job] = deque()

    def __len__(self) -> int:
        """Count the jobs that wait."""
        return len(self.waiting) + (self.lent is not None)

    def next(self) -> Job | None:
        """Take out the next job."""
        if self.lent is not None:
            job, self.lent = self.lent, None
            return job
        return self.waiting.popleft() if self.waiting else None

    def lend(self) -> Job:
        """Lend the job that is first."""
        self.lent = job = self.waiting.popleft()
        return job

    def take_back(self) -> None:
        """Let the job that was lent wait like the others."""
        if self.lent is not None:
            self.waiting.appendleft(self.lent)
            self.lent = None


class Backlog:
    """All jobs that are not with the worker yet."""

    def __init__(self) -> None:
        """Start with the main shell's queue."""
        self.queues: dict[str | None, Queue] = {None: Queue()}
        self._unqueued: deque[Job] = deque()
        """Task, thread and blocking jobs: they wait only while there is no worker."""
        self.size_bytes = 0

    @property
    def main(self) -> Queue:
        """Give the main shell's queue."""
        return self.queues[None]

    def add(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self.size_bytes += job.size_bytes
        if job.queued:
            self.queues[job.subshell].waiting.append(job)
        else:
            self._unqueued.append(job)

    def next_jobs(self) -> list[Job]:
        """Take out the jobs that can start now, in order; a queue whose job runs gives none."""
        ready = list(self._unqueued)
        self._unqueued.clear()
        for queue in self.queues.values():
            if queue.running is None and (job := queue.next()) is not None:
                queue.running = job
                ready.append(job)
        for job in ready:
            self._took(job)
        if len(ready) > 1:
            ready.sort(key=lambda job: job.number)
        return ready

    def take_lent(self) -> Job | None:
        """Take out the job that is lent, if one is."""
        job, self.main.lent = self.main.lent, None
        return None if job is None else self._took(job)

    def finished(self, job: Job) -> None:
        """Free the queue that a job has occupied."""
        queue = self.queues.get(job.subshell) if job.queued else None
        if queue is not None and queue.running is job:
            queue.running = None

    def take(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Take out the waiting jobs that ``wanted`` names, in the order of their arrival."""
        taken: list[Job] = []
        for waiting in (self._unqueued, *(queue.waiting for queue in self.queues.values())):
            kept: list[Job] = []
            for job in waiting:
                (taken if wanted(job) else kept).append(job)
            waiting.clear()
            waiting.extend(kept)
        for job in taken:
            self._took(job)
        return sorted(taken, key=lambda job: job.number)

    def open_queue(self, subshell: str) -> None:
        """Make the queue of a subshell."""
        self.queues[subshell] = Queue()

    def close_queue(self, subshell: str) -> list[Job]:
        """Forget the queue of a subshell; give the jobs that waited in it."""
        waiting = list(self.queues.pop(subshell).waiting)
        for job in waiting:
            self._took(job)
        return waiting

    def empty(self) -> bool:
        """Tell whether nothing waits."""
        return not self._unqueued and not any(map(len, self.queues.values()))

    def __len__(self) -> int:
        """Count the jobs that wait."""
        return len(self._unqueued) + sum(map(len, self.queues.values()))

    def _took(self, job: Job) -> Job:
        self.size_bytes -= job.size_bytes
        return job
