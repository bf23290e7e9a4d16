"""When a snapshot is taken: a pure decision on what was seen.

One rule. Take one once the queue has been idle for a moment, or, in a run without pauses, once the
work at risk is worth more than it costs; and again before a cell when something else ran since.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

IDLE_S = 0.02
"""How long nothing runs before the queue counts as idle."""
IDLE_COST_S = 0.25
"""While nobody waits a snapshot may cost this much whatever the cells before it took."""
MIN_RISK_S = 0.25
"""In a run without pauses so little work is not worth a snapshot, however cheap that is."""
MIN_COST_S = 0.002
"""What a snapshot is taken to cost at least: what the fork slows down later is not measured."""
FAULT_S = 1e-6, 1e-5
"""What the first write to a page that a copy shares costs: at least, at most."""


class When(Enum):
    """At which moment is asked."""

    idle = auto()
    """Nothing has run for `IDLE_S`."""
    before_cell = auto()
    """A queue cell is about to start."""
    asked = auto()
    """A person or a tag wants one."""


class Moment(NamedTuple):
    """What is known when it is asked."""

    policy: str
    """off, auto or always."""
    when: When
    cells: int = 0
    """Queue cells that have ended since the last snapshot."""
    is_dirty: bool = False
    """Something else may have changed variables since: a task, thread, comm handler, timer."""
    risk_s: float = 0.0
    """Time that the cells since the last snapshot took."""
    since_s: float = float("inf")
    """Age of the last snapshot."""
    fork_s: float = 0.0
    """How long the last one held up the worker."""
    cost_s: float = 0.0
    """What the last ones cost, with the page faults after them."""
    share: float = 0.1
    """What snapshots may cost of the time that cells take."""
    is_forbidden: bool = False
    """The cell before or after says no-snapshot."""
    is_short: bool = False
    """The machine has little memory left."""


class Decision(NamedTuple):
    """Whether to take one; why not, where that is worth telling."""

    take: bool
    reason: str = ""
    passes: bool = False
    """Later, though nothing else has happened, it may be taken."""


TAKE = Decision(take=True)
NOTHING_NEW = Decision(take=False)


def decide(moment: Moment) -> Decision:
    """Say whether a snapshot is taken now."""
    if moment.policy == "off" and moment.when is not When.asked:
        return NOTHING_NEW
    if moment.is_forbidden and moment.when is not When.asked:
        return Decision(take=False, reason="the cell has the tag no-snapshot")
    if moment.is_short:
        return Decision(take=False, reason="memory is short", passes=True)
    if moment.when is When.asked:
        return TAKE
    if moment.policy == "always" and moment.when is When.before_cell:
        return TAKE
    if not moment.cells and not moment.is_dirty:
        return NOTHING_NEW
    cost_s = max(moment.cost_s, MIN_COST_S)
    if moment.when is When.before_cell:
        # What changed beside the cells is worth the time in which it did.
        worth_s = moment.since_s if moment.is_dirty and not moment.cells else moment.risk_s
        is_worth_it = worth_s > MIN_RISK_S and worth_s * moment.share > cost_s
        return TAKE if is_worth_it else NOTHING_NEW
    if moment.cells and moment.fork_s <= IDLE_COST_S:
        return TAKE
    worth_s = max(moment.risk_s, moment.since_s)
    if worth_s * moment.share > max(moment.fork_s, MIN_COST_S):
        return TAKE
    if not moment.cells:
        return NOTHING_NEW
    reason = f"one costs {moment.fork_s:.1f} s, more than the cells were worth"
    return Decision(take=False, reason=reason, passes=True)


def whole_cost(fork_s: float, faults: int, system_s: float) -> float:
    """Estimate what a snapshot has cost: the fork, and the page faults after it.

    Args:
        fork_s: how long the fork held up the worker.
        faults: page faults since, at most as many as there are pages.
        system_s: time that the worker has spent in the system since, for these and other things.
    """
    least_s, most_s = (faults * one_s for one_s in FAULT_S)
    return fork_s + min(max(system_s, least_s), most_s)


def mix_cost(known_s: float, seen_s: float) -> float:
    """Learn from a measured cost: at once when it is higher, slowly when it is lower."""
    return seen_s if seen_s > known_s else known_s + (seen_s - known_s) * 0.3
