"""The worker's own part of snapshots: sees what runs, decides, forks, and tells the broker.

Threads: the main thread's; `request` may be called from any, `before_thread_cell` from the lane
thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstuck.protocol import CopyReady, Donate, SnapshotSkipped, Snapshotted, Snapshotting
from unstuck.typing import Tags
from unstuck_worker.snapshots import children, executors, holdings, hooks
from unstuck_worker.snapshots.fork import Bed, ForkFailedError, HinderedError, fork_copy
from unstuck_worker.snapshots.look import Look, Sight, busy_reason, is_memory_short
from unstuck_worker.snapshots.policy import IDLE_S, Decision, When, decide
from unstuck_worker.snapshots.revival import find_uncloseable
from unstuck_worker.snapshots.stakes import Stakes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from unstuck.jobcontext import JobContext
    from unstuck_worker.snapshots.descriptors import Recipes
    from unstuck_worker.snapshots.fork import Awake
    from unstuck_worker.snapshots.site import Site

FORK_DEADLINE_S = 5.0
"""How long a fork may take; the broker then takes the worker for hung."""
PAUSES_S = (0.002, 0.002, 0.005, 0.02, 0.1, 0.5, 1.0)
"""When it is tried again, while the queue is idle, what a busy thread has prevented."""
LOOKS = 3
"""Before a cell: how often a busy thread is looked at."""
LOOKS_IF_ASKED = 100
LOOK_AGAIN_S = 0.001
FREE_S = 0.05
"""Before a cell in a thread: how long the main thread may take to be free for a snapshot."""
AT_ONCE_S = 0.1
"""A promoted copy makes a copy of itself at once if a fork takes no longer."""


class Snapshots:
    """When copies of this worker are made."""

    def __init__(self, site: Site, floor: int) -> None:
        """Copy the worker that ``site`` describes; numbers up to ``floor`` were given before."""
        self._site = site
        self._look = Look()
        self._number = floor
        self._names: deque[str] = deque()
        self._stakes = Stakes()
        self._queued: JobContext | None = None
        """The queue cell that runs, or whose end is not counted yet."""
        self._ended_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tries = 0
        self._told = ""
        self._is_guarded = False
        executors.watch()
        hooks.spare_users()

    def start(self) -> None:
        """Take what the event loop does now for the worker's own."""
        self._site.know_own_calls()

    # --- what runs --------------------------------------------------------------------------------

    def before_cell(self, job: JobContext) -> bool:
        """Note that a queue cell starts, and take what is due before it.

        Returns:
            whether this process is a copy by now, which must not run the cell.
        """
        tags = _tags(job)
        self._stakes.is_forbidden = Tags.no_snapshot in tags
        woken = self._take_due(tags)
        self._queued = job
        self._stakes.cell_begins()
        return woken

    def before_other_cell(self, job: JobContext) -> bool:
        """Take what is due before a cell that runs beside the queue; True in the copy."""
        tags = _tags(job)
        return self._is_due_beside(tags) and self._take_due(tags)

    def before_thread_cell(self, job: JobContext) -> None:
        """Have the main thread do that, if it is free, and wait for it; in the lane thread."""
        is_open = self._is_ending() or self._is_open()
        if not (is_open and self._is_due_beside(_tags(job))):
            return
        begun, done = threading.Event(), threading.Event()
        until_s = time.monotonic() + FREE_S

        def take() -> None:
            if self._is_ending() and time.monotonic() < until_s:
                self._site.loop.call_soon(take)
                return
            begun.set()
            try:
                self.before_other_cell(job)
            finally:
                done.set()

        self._site.loop.call_soon_threadsafe(take)
        if begun.wait(FREE_S):
            done.wait(FORK_DEADLINE_S)

    def _is_due_beside(self, tags: tuple[str, ...]) -> bool:
        if Tags.no_snapshot in tags:
            return False
        if Tags.snapshot in tags or self._stakes.are_high(self._policy, self._share):
            return True
        return self._is_ending() and self._policy != "off"

    def _is_ending(self) -> bool:
        """Say whether the reply of a queue cell is out, and its end is not counted yet."""
        queued = self._queued
        return queued is not None and queued.finished

    def _take_due(self, tags: tuple[str, ...]) -> bool:
        if self._take_named():
            return True
        if not self._is_open():
            return False
        if Tags.snapshot in tags:
            return self._consider(When.asked)
        if not self._stakes.may_be_high(self._policy, self._share):
            return False
        return self._consider(When.before_cell)

    def cell_ended(self, _task: object = None) -> None:
        """Note that a queue cell has ended, its reply is out; take what was asked for."""
        self._queued = None
        self._ended_s = time.monotonic()
        self._stakes.cell_ended(self._ended_s)
        if self._take_named():
            return
        if self._timer is None and self._policy != "off":
            self._arm(IDLE_S)

    def job_ended(self, _task: object = None) -> None:
        """Note that something ran beside the queue: a task, a comm handler."""
        self._stakes.is_dirty = True
        self._ended_s = time.monotonic()
        if self._timer is None and self._policy != "off":
            self._arm(IDLE_S)

    def note_thread_job(self) -> None:
        """Note that a cell has ended in a thread; called there."""
        self._stakes.is_dirty = True

    def request(self, name: str) -> None:
        """Take one as soon as the running cell has ended."""
        self._names.append(name)
        # Nobody may run a cell of the queue: a thread asks, or a task.
        self._site.loop.call_soon_threadsafe(self._take_named)

    def _take_named(self) -> bool:
        """Take those that were asked for by name; True in a copy."""
        while self._names and self._is_open():
            if self._take(self._names.popleft(), When.asked):
                return True
        return False

    # --- when -------------------------------------------------------------------------------------

    @property
    def _policy(self) -> str:
        return str(self._site.settings.get("snapshots", "auto"))

    @property
    def _share(self) -> float:
        return float(self._site.settings.get("snapshot_share", 0.1))

    def _is_open(self) -> bool:
        """Say whether a snapshot is possible: no cell runs, and the process is not to end."""
        return not (self._site.is_busy() or self._site.is_stopping())

    def _arm(self, delay_s: float) -> None:
        self._timer = self._site.loop.call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        """Take one if the queue is idle; a cell that ends later sets the timer again."""
        self._timer = None
        if not self._is_open():
            return
        left_s = self._ended_s + IDLE_S - time.monotonic()
        if left_s > 0.001:
            self._arm(left_s)
            return
        self._consider(When.idle)

    def _consider(self, when: When) -> bool:
        decision = self._decide(when)
        if decision.take:
            return self._take("", when)
        if decision.reason:
            self._tell("", decision.reason)
        if decision.passes and when is When.idle:
            self._try_again()
        return False

    def _decide(self, when: When) -> Decision:
        stakes = self._stakes
        is_dirty = stakes.is_dirty
        if when is When.before_cell and not stakes.cells and not is_dirty:
            is_dirty = self._has_life()
        moment = stakes.moment(self._policy, self._share, when, is_dirty=is_dirty)
        decision = decide(moment)
        if decision.take and is_memory_short():
            return decide(moment._replace(is_short=True))
        if decision.take:
            stakes.believe(moment)
        return decision

    def _has_life(self) -> bool:
        """Say whether user code can have run beside the cells: tasks, timers, threads."""
        if self._stakes.is_first:
            return False
        threads = (t for t in threading.enumerate() if t is not threading.main_thread())
        return self._site.has_foreign_calls() or bool(holdings.lost_threads(threads))

    # --- the snapshot -----------------------------------------------------------------------------

    def _take(self, name: str, when: When) -> bool:
        """Take one; True in the copy, once it is the worker and has a copy of its own."""
        if not self._take_one(name, when):
            return False
        try:
            self._copy_at_once()
        finally:
            self._site.hear()
        return True

    def _copy_at_once(self) -> None:
        """Take one before the first job: a client that waits for nothing may lose it as well.

        Where a fork takes long the next idle moment has to do; not where a spare is there already.
        """
        if self._is_guarded:
            self._stakes.taken(self._stakes.fork_s)
        while self._stakes.fork_s < AT_ONCE_S and self._decide(When.idle).take:
            if not self._take_one("", When.idle):
                return
        self._arm_again()

    def _take_one(self, name: str, when: When) -> bool:
        """Take one; True in the copy, once it is the worker."""
        began_s = time.monotonic()
        sight = self._see(when)
        if sight.hindrance:
            self._be_hindered(name, sight, when)
            return False
        known = children.living()
        number, cell = self._number + 1, self._site.shell.counter - 1
        try:
            self._site.lane.send(Snapshotting(number, name, FORK_DEADLINE_S))
            self._number = number
            self._look.pause_pools()
            awake = fork_copy(self._bed(number, name, cell, sight), FORK_DEADLINE_S, busy_reason)
        except ForkFailedError as error:
            self._site.release_writers()
            self._site.lane.send(SnapshotSkipped(number, name, str(error)))
            if not isinstance(error, HinderedError):
                self._stakes.fork_s = time.monotonic() - began_s
            elif when is When.idle:
                self._try_again()
            return False
        if awake is not None:
            self._wake(awake, known, name)
            return True
        self._site.release_writers()
        self._stakes.taken(time.monotonic() - began_s)
        self._tries, self._told = 0, ""
        self._site.lane.send(Snapshotted(number, self._stakes.fork_s, self._stakes.faults, cell))
        return False

    def lend_soon(
        self, address: str, is_wanted: Callable[[], bool], answer: Callable[[str], None]
    ) -> None:
        """Fork a copy that reports at ``address``, when the main thread is free; from any thread.

        ``answer`` is told what hinders it, or nothing. The copy is no snapshot.
        """
        self._site.loop.call_soon_threadsafe(self._lend, address, is_wanted, answer)

    def _lend(
        self, address: str, is_wanted: Callable[[], bool], answer: Callable[[str], None]
    ) -> None:
        if not is_wanted():
            return
        if self._timer is not None:  # The one timer that is the worker's own.
            self._timer.cancel()
            self._timer = None
            self._site.loop.call_soon(self._arm_again)
        if self._site.has_jobs() or self._site.has_foreign_calls():
            answer("something waits in the event loop, and would go on twice")
            return
        sight = self._see(When.before_cell)
        if sight.hindrance:
            answer(sight.hindrance)
            return
        known, awake = children.living(), None
        hindrance = ", ".join(sight.reasons)
        if not hindrance:
            try:
                self._look.pause_pools()
                bed = self._bed(0, "", self._site.shell.counter - 1, sight)
                bed.address, bed.wants_spare = address, False
                awake = fork_copy(bed, FORK_DEADLINE_S, busy_reason)
            except ForkFailedError as error:
                hindrance = str(error)
        if awake is not None:
            self._wake(awake, known)
            # Its snapshots would come to the broker as those of this session.
            self._site.shell.kernel.snapshots = None
            self._site.hear()
            return
        self._site.release_writers()
        answer(hindrance)

    def _arm_again(self) -> None:
        if self._timer is None and self._policy != "off":
            self._arm(IDLE_S)

    def _see(self, when: When) -> Sight:
        """Look; before a cell look again at once at what may be gone in a moment.

        Where nothing hinders, other threads are kept from lane and history from here on.
        """
        looks = {When.idle: 1, When.before_cell: LOOKS, When.asked: LOOKS_IF_ASKED}[when]
        if when is When.before_cell and self._policy == "always" and not self._told:
            # As if asked: history is being written, on a busy machine. Not for what lasts.
            looks = LOOKS_IF_ASKED
        while True:
            looks -= 1
            if self._site.hold_writers():
                try:
                    sight = self._look.look(self._site.beside())
                except (OSError, MemoryError) as error:
                    # No descriptor is left, or no /proc; the writers have to go on in any case.
                    sight = Sight(f"this process cannot be looked at: {error}")
                if not sight.hindrance:
                    return sight
                self._site.release_writers()
            else:
                sight = Sight("outputs or history are being written", passes=True)
            if not sight.passes or looks <= 0:
                return sight
            time.sleep(LOOK_AGAIN_S)

    def _be_hindered(self, name: str, sight: Sight, when: When) -> None:
        if when is When.idle and sight.passes:
            self._try_again()
            if self._tries <= LOOKS:
                return
        self._tell(name, sight.hindrance)

    def _try_again(self) -> None:
        if self._timer is None:
            self._arm(PAUSES_S[min(self._tries, len(PAUSES_S) - 1)])
            self._tries += 1

    def _tell(self, name: str, reason: str) -> None:
        """Say why there is none, once for each reason."""
        if name or reason != self._told:
            self._told = reason
            self._site.lane.send(SnapshotSkipped(self._number + 1, name, reason))

    def _bed(self, number: int, name: str, cell: int, sight: Sight) -> Bed:
        taken_at = time.time()
        session = int(getattr(self._site.history, "session_number", 0) or 0)

        def ready(pid: int, recipes: Recipes) -> CopyReady:
            return CopyReady(
                number,
                pid,
                name,
                cell,
                "donor" if sight.reasons else "promotable",
                list(sight.reasons),
                list(sight.lost),
                taken_at,
                session,
                is_faithful=not sight.reasons and not sight.lost,
                private=list(recipes.private),
            )

        site = self._site
        own_files = [Path(site.history.hist_file)]
        wants_spare = not sight.reasons
        return Bed(
            site.address, site.broker, site.ends, own_files, ready, find_uncloseable, wants_spare
        )

    # --- in the copy ------------------------------------------------------------------------------

    def _wake(self, awake: Awake, known: list[children.Child], name: str = "") -> None:
        """Be the worker from here on; who goes back to a name shall find it again later."""
        if isinstance(awake.order, Donate):
            self._site.donate(awake, awake.order)
        children.adopt(known)
        self._stakes.revive()
        self._queued = None
        self._tries, self._told = 0, ""
        self._names.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._number = max(self._number, awake.order.snapshot_floor)
        self._ended_s = float("-inf")
        self._is_guarded = awake.order.is_guarded
        self._site.revive(awake, awake.order)
        if name:
            self.request(name)


def _tags(job: JobContext) -> tuple[str, ...]:
    """Give a cell's tags, if one of them can concern us."""
    if b"snapshot" not in job.metadata:
        return ()
    tags: Any = job.message["metadata"].get("tags")
    return tuple(tags) if isinstance(tags, list) else ()
