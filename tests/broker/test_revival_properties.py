"""Random lives of a kernel with snapshots: the rules of `Kernel`, and all that copies can do."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from broker.test_core_properties import Kernel
from pump import make_word
from unstuck.protocol import (
    AskRewind,
    AskSnapshots,
    Received,
    SnapshotSkipped,
    Snapshotted,
    TransplantProgress,
)
from unstuck_broker.events import (
    CopiesMeasured,
    CopyAppeared,
    CopyGone,
    OutputsHeld,
    WorkerExited,
)
from unstuck_broker.lifecycle import S
from unstuck_broker.reason import Reason, Why

NAMES = st.sampled_from(["", "", "", "a", "b", "c"])
KINDS = st.sampled_from(["promotable", "promotable", "donor"])


class KernelWithCopies(Kernel):
    """One kernel whose worker takes snapshots."""

    number = 0
    forking: int | None = None
    reviving = False

    # --- what the worker and its copies do --------------------------------------------------------

    @precondition(lambda self: self.pump.process == "ready")
    @rule(name=NAMES, kind=KINDS, faithful=st.booleans())
    def worker_takes_a_snapshot(self, name: str, kind: str, *, faithful: bool) -> None:
        self._begin(name)
        self._come_back()
        self.pump.copy_appears(self.number, name=name, kind=kind, is_faithful=faithful)

    @precondition(lambda self: self.pump.process == "ready")
    @rule()
    def worker_forks(self) -> None:
        self._begin("")

    @precondition(lambda self: self.pump.process == "ready" and self.forking is not None)
    @rule(appears=st.booleans())
    def the_fork_comes_back(self, *, appears: bool) -> None:
        number = self.forking
        self._come_back()
        if appears and number is not None:
            self.pump.copy_appears(number)

    @precondition(lambda self: self.pump.process == "ready")
    @rule()
    def worker_skips_a_snapshot(self) -> None:
        self.number += 1
        self.forking = None
        self.pump.say(SnapshotSkipped(self.number, "", "memory is short"))

    @rule()
    def a_copy_appears_that_nobody_expects(self) -> None:
        self.number += 1
        if not self.core.life.ended:
            self.pump.copy_appears(self.number)

    @precondition(lambda self: self.pump.copies - self.pump.spares)
    @rule(at=st.integers(0, 9))
    def a_spare_appears(self, at: int) -> None:
        alone = sorted(self.pump.copies - self.pump.spares)
        number = alone[at % len(alone)]
        self.pump.spares.add(number)
        self.pump.feed(CopyAppeared(make_word(number, is_spare=True, pid=8000 + number)))

    @precondition(lambda self: self.pump.copies)
    @rule(at=st.integers(0, 9), which=st.sampled_from([8000, 9000]))
    def a_copy_or_its_spare_ends(self, at: int, which: int) -> None:
        number = sorted(self.pump.copies)[at % len(self.pump.copies)]
        self.pump.copy_leaves(number)
        self.pump.feed(CopyGone(number, which + number))

    @precondition(lambda self: self.pump.copies)
    @rule(size=st.integers(0, 9), budget=st.integers(0, 20))
    def copies_are_measured(self, size: int, budget: int) -> None:
        memory = dict.fromkeys(self.pump.copies, size)
        self.pump.feed(CopiesMeasured(memory, sum(memory.values()), budget))

    @precondition(lambda self: self.pump.process == "ready")
    @rule(at=st.integers(0, 99), to=st.sampled_from(["", "", "a", "b", "3"]))
    def worker_asks_for_a_rewind(self, at: int, to: str) -> None:
        self.pump.say(AskRewind(1, self._some_job(at), to))
        self.pump.say(AskSnapshots(2))

    @precondition(lambda self: self.pump.process == "starting")
    @rule()
    def worker_takes_variables_over(self) -> None:
        self.pump.say(TransplantProgress(1, 2, "x"))
        self.pump.say(Received(3, [("x", "why")], 10, 0.1))

    @precondition(lambda self: self.pump.process == "starting" and self.core.revival.attempt)
    @rule()
    def a_copy_cannot_become_the_worker(self) -> None:
        self.pump.process = "none"
        self.pump.feed(WorkerExited(None, None, reason=Reason(Why.START, "it has ended")))

    @rule(held=st.booleans())
    def outputs_are_held(self, *, held: bool) -> None:
        self.pump.feed(OutputsHeld(held))

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def the_book_agrees_with_the_copies(self) -> None:
        ready = self.core.revival.copies.ready()
        assert {copy.number for copy in ready} == self.pump.copies
        assert {copy.number for copy in ready if copy.spare is not None} == self.pump.spares

    @invariant()
    def a_recovery_is_under_way_only_while_nothing_runs(self) -> None:
        if self.core.revival.attempt is not None:
            assert self.core.life.state is S.RECOVERING

    def teardown(self) -> None:
        """End what hangs, and the kernel as ever."""
        self.pump.feed(OutputsHeld(held=False))
        if self.forking is not None and self.pump.process == "ready":
            self._come_back()
        super().teardown()

    def _begin(self, name: str) -> None:
        self.number += 1
        self.forking = self.number
        self.pump.begin_snapshot(self.number, name=name)

    def _come_back(self) -> None:
        if self.forking is not None:
            self.pump.say(Snapshotted(self.forking, 0.001, 1, 1))
        self.forking = None


KernelWithCopies.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyLifeOfAKernelWithCopies = KernelWithCopies.TestCase
