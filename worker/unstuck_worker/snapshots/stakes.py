"""What is at stake: the work since the last snapshot, and what a snapshot costs.

Threads: the main thread's; `is_dirty` is set, and `are_high` asked, in others as well.
"""

from __future__ import annotations

import resource
import time

from unstuck_worker.snapshots.policy import MIN_RISK_S, Moment, When, mix_cost, whole_cost

_NEVER_S = float("-inf")


class Stakes:
    """What the policy has to know of the past."""

    def __init__(self) -> None:
        """Begin before the first cell."""
        self.cells = 0
        """Queue cells that have ended since the last snapshot."""
        self.is_dirty = False
        """Something else may have changed variables since."""
        self.is_forbidden = False
        """The cell before or after says no-snapshot."""
        self.fork_s = 0.0
        """How long the last one held up the worker."""
        self.faults = 0
        """Page faults between the last two."""
        self._began_s = 0.0
        self._risk_s = 0.0
        self._taken_s = _NEVER_S
        self._cost_s = 0.0
        self._all_faults = 0
        self._system_s = 0.0

    # --- what runs --------------------------------------------------------------------------------

    def cell_begins(self) -> None:
        """Take the time of a queue cell from here on."""
        self._began_s = time.monotonic()

    def cell_ended(self, now: float) -> None:
        """Put the time of a queue cell at risk."""
        self._risk_s += now - self._began_s
        self.cells += 1

    # --- what is asked ----------------------------------------------------------------------------

    @property
    def is_first(self) -> bool:
        """Tell whether none was taken yet in this process."""
        return self._taken_s == _NEVER_S

    def may_be_high(self, policy: str, share: float) -> bool:
        """Say no where the policy would, for as little as that may cost before every cell."""
        if policy != "auto" or not self.cells:
            return policy != "off"
        return self._is_worth(self._risk_s, share)

    def are_high(self, policy: str, share: float) -> bool:
        """Say what `may_be_high` says, without a look at what user code does now."""
        if policy != "auto" or self.cells:
            return self.may_be_high(policy, share)
        return self.is_dirty and self._is_worth(time.monotonic() - self._taken_s, share)

    def _is_worth(self, risk_s: float, share: float) -> bool:
        return risk_s > MIN_RISK_S and risk_s * share > self._cost_s

    def moment(self, policy: str, share: float, when: When, *, is_dirty: bool) -> Moment:
        """Say what there is to decide upon."""
        faults, system_s = _usage()
        faults = min(faults - self._all_faults, _resident_pages())
        seen_s = whole_cost(self.fork_s, faults, system_s - self._system_s)
        return Moment(
            policy=policy,
            when=when,
            cells=self.cells,
            is_dirty=is_dirty,
            risk_s=self._risk_s,
            since_s=time.monotonic() - self._taken_s,
            fork_s=self.fork_s,
            cost_s=mix_cost(self._cost_s, seen_s if self._all_faults else 0.0),
            share=share,
            is_forbidden=self.is_forbidden,
        )

    # --- what comes of it -------------------------------------------------------------------------

    def believe(self, moment: Moment) -> None:
        """Keep what the last ones were seen to cost: another one is taken."""
        self._cost_s = moment.cost_s

    def taken(self, took_s: float) -> None:
        """Note that one was taken."""
        faults, self._system_s = _usage()
        self.faults, self._all_faults = faults - self._all_faults, faults
        self.fork_s = took_s
        self._taken_s = time.monotonic()
        self._start_afresh()

    def revive(self) -> None:
        """Begin in a copy: the copy of what it is now is gone, and another one is due."""
        self._start_afresh()
        self._taken_s, self._all_faults = _NEVER_S, 0
        self.cells = 1

    def _start_afresh(self) -> None:
        self.cells, self._risk_s, self.is_dirty = 0, 0.0, False
        self.is_forbidden = False


def _usage() -> tuple[int, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_stime


def _resident_pages() -> int:
    try:
        with open("/proc/self/statm", "rb", 0) as file:  # noqa: PTH123  (once for each snapshot)
            return int(file.read(256).split()[1])
    except (OSError, ValueError, IndexError):
        return 0
