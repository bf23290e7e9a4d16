"""The interrupt ladder: which rung follows which, and when (docs/architecture.md, "The ladder")."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from unstuck.config import Config, InterruptPolicy


class Rung(Enum):
    """How far an interrupt has gone."""

    SIGNALLED = 1
    """SIGINT is with the worker's main thread."""
    RAISED = 2
    """KeyboardInterrupt was raised asynchronously; child processes got SIGINT."""
    LOOKED = 3
    """The stack is being taken: nobody has been told yet what a second interrupt will do."""
    ANNOUNCED = 4
    """The stack is shown under the cell, with what a second interrupt will do."""
    KILL = 5
    """The worker is to be killed."""


TRACEBACK_S = 10.0
"""How long a cell may take to end once its interrupt has reached it."""

Why = Literal["interrupt", "timeout"]


class Ladder:
    """One interrupt on its way up, for the jobs that it aims at."""

    __slots__ = ("_caught", "_grace_s", "_rung_s", "horizon", "jobs", "policy", "rung", "why")

    def __init__(
        self, jobs: set[int], horizon: int, now: float, config: Config, why: Why = "interrupt"
    ) -> None:
        """Start on the first rung.

        Args:
            jobs: the jobs that shall end.
            horizon: the number of the last job received before the interrupt; an error of a job in
                ``jobs`` aborts queued jobs up to it and no later one.
            now: monotonic seconds.
            config: gives the delays and the policy.
            why: a timeout kills at the grace whatever the policy says.
        """
        self.jobs = jobs
        self._caught: set[int] = set()
        self.horizon = horizon
        self.rung = Rung.SIGNALLED
        self.why = why
        self.policy: InterruptPolicy = "always" if why == "timeout" else config.interrupt_policy
        self._grace_s = now + config.interrupt_grace_s
        self._rung_s = (now + config.interrupt_hard_s, self._grace_s)

    def caught(self, job: int, now: float) -> None:
        """Take note that the interrupt has reached a job.

        A first traceback loads modules and takes a second on a loaded machine: when each job has
        come so far, what would disturb it is put off; once, since a cell may catch every interrupt.
        """
        if job in self._caught:
            return
        self._caught.add(job)
        if self.jobs <= self._caught and self.rung in (Rung.SIGNALLED, Rung.RAISED):
            self.rung = Rung.RAISED
            self._rung_s = (now, now + TRACEBACK_S)

    def deadline_s(self) -> float | None:
        """Give the monotonic time of the next rung; None where only a second interrupt leads on."""
        match self.rung:
            case Rung.SIGNALLED:
                return self._rung_s[0]
            case Rung.RAISED:
                return self._rung_s[1]
            case Rung.LOOKED | Rung.ANNOUNCED | Rung.KILL:
                return None

    def climb(self, now: float, *, is_safe: bool = False) -> Rung | None:
        """Take the next rung if its time has come; None if it has not.

        Args:
            now: monotonic seconds.
            is_safe: a kill would cost nothing but the jobs that are to end.
        """
        deadline = self.deadline_s()
        if deadline is None or now < deadline:
            return None
        if self.rung is Rung.SIGNALLED:
            self.rung = Rung.RAISED
        else:
            kills = self.policy == "always" or (self.policy == "auto" and is_safe)
            self.rung = Rung.KILL if kills else Rung.LOOKED
        return self.rung

    def announce(self) -> bool:
        """Take the stack; True when it is to be shown."""
        if self.rung is not Rung.LOOKED:
            return False
        self.rung = Rung.ANNOUNCED
        return True

    def insist(self, horizon: int, now: float) -> bool:
        """Take a second interrupt of the same jobs; True when it asks for the kill.

        Before the announcement an impatient double click must not cost a session. What was received
        up to ``horizon``, before this interrupt, is aborted with the rest. A traceback that is
        still on its way after the grace is not waited for any more.
        """
        self.horizon = horizon
        if self.rung is Rung.RAISED and now >= self._grace_s:
            self._rung_s = (now, now)
        if self.rung is Rung.ANNOUNCED and self.policy == "auto":
            self.rung = Rung.KILL
            return True
        return False

    @property
    def at_the_end(self) -> bool:
        """Tell whether it has led to the kill."""
        return self.rung is Rung.KILL
