"""Snapshots in the core: what copies there are, and how one comes back when the worker has died.

`Recovery` asks `begin` at each death. Where there is a copy, the cells that ran keep their request
open until the variables are back (`worker_ready`) or no copy is left, so that their replies can say
what came back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from msgspec import Struct

from unstuck.config import settings_of
from unstuck.protocol import Promote, Received, SnapshotSkipped, Snapshotted, Snapshotting
from unstuck.typing import KernelConcurrencyMode, MsgType
from unstuck_broker import replies
from unstuck_broker.account import Account, make_account, prospect
from unstuck_broker.actions import DropCopies, PromoteCopy, PublishToClients, SpawnWorker
from unstuck_broker.copies import Copies, Copy, Effect
from unstuck_broker.events import (
    CopiesMeasured,
    CopyAppeared,
    CopyGone,
    OutputsHeld,
    WorkerExited,
)
from unstuck_broker.reason import Reason, Why

if TYPE_CHECKING:
    from unstuck.protocol import TransplantProgress
    from unstuck_broker.core import Core
    from unstuck_broker.job import Job

_READ_S = 0.5
"""At the deadline of a fork, the word that it has come back may lie unread: it gets this long."""
_TAKING = "\r[unstuck] taking variables over: "


class Loss(Struct, frozen=True):
    """A cell that died with the worker, and waits for what its reply can say."""

    job: int
    ename: str
    cause: str
    """Without what became of the variables."""
    horizon: int
    """The number of the last request that its error aborts."""


class Attempt(Struct):
    """A recovery from a copy that is under way."""

    copy: Copy
    event: WorkerExited
    """The death that it recovers from."""
    cause: str
    began_s: float
    losses: list[Loss]
    is_rewind: bool
    received: Received | None = None
    progress: str = ""
    """The line under the cells that says how far it is."""


class Fork(Struct):
    """A fork that the worker has begun and that has not come back."""

    number: int
    until_s: float
    is_read: bool = False
    """All that it wrote until its deadline was read."""


class Revival:
    """The copies of a core's worker, and the recovery from one of them."""

    def __init__(self, core: Core) -> None:
        """Revive the worker of ``core``."""
        self._core = core
        self.copies = Copies()
        self.attempt: Attempt | None = None
        self.target: int | None = None
        """The copy that a rewind, which has begun, goes to."""
        self.last_cell = 0
        """The highest execution count that was given."""
        self._fork: Fork | None = None
        self._outputs_held = False
        self._is_leaving = False
        """The present worker was asked to end: what it copies now is of no use."""

    # --- what the worker and its copies say -------------------------------------------------------

    def heard(self, message: Snapshotting | Snapshotted | SnapshotSkipped, now: float) -> None:
        """Follow the worker through a snapshot."""
        core = self._core
        match message:
            case Snapshotting(number) if self._is_leaving:
                self.copies.highest = max(self.copies.highest, number)
            case Snapshotting(number, name, deadline_s):
                comms = frozenset(core.comms.info(None)) - core.comms.opening(core.running.values())
                counts = (job.execution_count for job in core.running.values())
                running = frozenset(count for count in counts if count is not None)
                copy = Copy(number, name, comms, core.concurrency_mode, unfinished=running)
                self.copies.begin(copy)
                self._fork = Fork(number, now + deadline_s)
            case Snapshotted():
                self._fork = None
                self.copies.last_skipped = ""
            case SnapshotSkipped(number, _name, reason):
                if self._fork is not None:
                    self.copies.forget(self._fork.number)
                self._fork = None
                self.copies.skip(number, reason)
            case _:
                assert_never(message)

    def ended(self, job: Job) -> None:
        """Take note that a job has ended in the worker: copies have not all of its effects."""
        if job.has_effects:
            self.copies.ended(Effect(job.number, job.execution_count, job.is_cell))

    def take(self, event: CopyAppeared | CopyGone | CopiesMeasured | OutputsHeld) -> None:
        """Take what was seen of the copies."""
        match event:
            case CopyAppeared(word):
                self._drop(self.copies.appear(word, self._core.config.snapshot_count))
            case CopyGone(number, pid):
                self.copies.forget(number, pid)
            case CopiesMeasured(memory, total_bytes, budget_bytes):
                self._drop(self.copies.measured(memory, total_bytes, budget_bytes))
            case OutputsHeld(held):
                self._outputs_held = held
            case _:
                assert_never(event)

    def leave(self) -> None:
        """Drop all copies, and take none any more of this worker: it was asked to end."""
        self._is_leaving = True
        self.drop_all()

    def drop_all(self) -> None:
        """Drop all copies: snapshots are switched off."""
        self.attempt = None
        self.target = None
        self._fork = None
        self._drop(self.copies.take_all())

    def _drop(self, numbers: list[int]) -> None:
        if numbers:
            self._core.out.order(DropCopies(tuple(numbers)))

    # --- a fork that hangs ------------------------------------------------------------------------

    def deadline_s(self) -> float | None:
        """Name the time at which a fork has to be back."""
        waits = self._fork is not None and not self._outputs_held
        return self._fork.until_s if waits and self._fork is not None else None

    def tick(self, now: float) -> None:
        """Kill a worker whose fork does not come back: it cannot be interrupted there."""
        fork = self._fork
        deadline_s = self.deadline_s()
        if fork is None or deadline_s is None or now < deadline_s:
            return
        if not fork.is_read:
            self._fork = Fork(fork.number, now + _READ_S, is_read=True)
            return
        self._fork = None
        if self._core.life.takes_jobs:
            self._core.recovery.kill(Reason(Why.SNAPSHOT, "its snapshot hung in fork()"))

    # --- what a kill would cost -------------------------------------------------------------------

    def is_safe(self, jobs: set[int]) -> bool:
        """Tell whether a kill would cost nothing but these jobs."""
        copy = self.copies.newest()
        others = (job for job in self._core.running.values() if job.number not in jobs)
        return copy is not None and copy.is_faithful and not any(job.is_cell for job in others)

    def prospect(self) -> str:
        """Say what a kill would cost now."""
        return prospect(self.copies.newest())

    @property
    def next_cell(self) -> int:
        """Give the execution count that a new worker begins with."""
        return 1 if self.attempt is None else self.last_cell + 1

    # --- from death to life -----------------------------------------------------------------------

    def begin(self, event: WorkerExited, cause: str, losses: list[Loss], now: float) -> bool:
        """Begin a recovery from the best copy; False where there is none.

        Args:
            event: the death.
            cause: the same in words.
            losses: the cells that died.
            now: monotonic seconds.
        """
        self._fork = None
        self.copies.forget_unborn()
        target, self.target = self.target, None
        self._core.rewind.forget_wish()
        copy = None if target is None else self.copies.get(target)
        copy = copy or self.copies.newest()
        before, self.attempt = self.attempt, None
        if copy is None:
            return False
        is_rewind = target is not None and copy.number == target
        if before is None:
            self.attempt = Attempt(copy, event, cause, now, losses, is_rewind)
        else:  # The copy of this attempt has died before it was the worker: the next one, please.
            self.attempt = Attempt(
                copy, before.event, before.cause, before.began_s, before.losses, is_rewind=False
            )
        self.copies.forget(copy.number)
        core = self._core
        if copy.is_promotable:
            order = Promote(core.last_number, self.last_cell, self.copies.highest, self._settings())
            core.out.order(PromoteCopy(copy.number, order))
        else:
            core.out.order(SpawnWorker(0.0, copy.number))
        return True

    def _settings(self) -> dict[str, object]:
        return settings_of(self._core.config)

    def received(self, message: Received) -> None:
        """Keep what a new worker has taken over; its first word follows."""
        if self.attempt is None:
            return
        self.attempt.received = message
        if self.is_given_up:
            why = f"nothing came out of the snapshot: {message.failed[0][1]}"
            self._core.recovery.kill(Reason(Why.START, why))

    @property
    def is_given_up(self) -> bool:
        """Tell whether the present recovery has failed: what its worker still says is not heard."""
        received = None if self.attempt is None else self.attempt.received
        # A session may have only variables that cannot be pickled: its history comes all the same.
        return received is not None and bool(received.failed) and not received.size_bytes

    def progress(self, message: TransplantProgress, now: float) -> None:
        """Show under the lost cells how far the transplant is."""
        attempt = self.attempt
        if attempt is None:
            return
        attempt.progress = f"{_TAKING}{message.done} of {message.total}"
        for parent in self._parents():
            self._core.out.stream(parent, replies.STDERR, attempt.progress, now)

    def worker_ready(self, now: float) -> bool:
        """Tell what came back, and end the cells that were lost; False where nothing came back."""
        attempt, self.attempt = self.attempt, None
        self._is_leaving = False
        if attempt is None:
            self.last_cell = 0
            return False
        core, copy, received = self._core, attempt.copy, attempt.received
        self._drop(self.copies.promoted(copy))
        if copy.is_promotable:
            core.recovery.close_comms(keep=copy.comms)
            core.concurrency_mode = copy.mode
        else:
            core.recovery.close_comms()
            core.concurrency_mode = KernelConcurrencyMode.default
        account = make_account(
            copy,
            attempt.cause,
            "promotion" if copy.is_promotable else "transplant",
            now - attempt.began_s,
            is_rewind=attempt.is_rewind,
            is_idle=not attempt.losses and not attempt.is_rewind,
            came=None if received is None else received.came,
            failed=() if received is None else received.failed,
        )
        core.out.log(f"worker revived snapshot={copy.number} way={account.way}")
        self._tell(account, attempt)
        core.recovery.end_lost(attempt.losses, attempt.event, attempt.cause, account.state())
        core.rewind.end()
        return True

    def _tell(self, account: Account, attempt: Attempt) -> None:
        core = self._core
        data = account.display_data()
        for parent in self._parents():
            if attempt.progress:
                done = f"{_TAKING}done".ljust(len(attempt.progress))
                core.out.note(parent, replies.STDERR, f"{done}\n")
            core.out.note(parent, replies.STDERR, account.line())
            core.out.publish(PublishToClients("display_data", data, parent))

    def _parents(self) -> list[bytes]:
        """Name the cells under which a recovery is told; without one, the newest."""
        core = self._core
        running = sorted(core.running.values(), key=lambda job: job.number)
        cells = [job.request.header_json for job in running if job.kind is MsgType.execute_request]
        return cells or [core.last_header]
