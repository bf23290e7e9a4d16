"""What is at stake, as cells run and snapshots are taken."""

from __future__ import annotations

import time

import pytest

from unstuck_worker.snapshots.stakes import Stakes


@pytest.mark.parametrize(
    ("policy", "cell_s", "is_high"),
    [
        ("auto", 1.0, True),
        ("auto", 0.1, False),
        ("off", 1.0, False),
        ("always", 0.0, True),
    ],
)
def test_they_are_high_after_work_that_is_worth_a_snapshot(
    policy: str, cell_s: float, is_high: bool
) -> None:
    stakes = Stakes()
    stakes.cell_begins()
    stakes.cell_ended(time.monotonic() + cell_s)
    assert stakes.are_high(policy, 0.1) is is_high
    assert stakes.may_be_high(policy, 0.1) is is_high


def test_a_snapshot_takes_the_work_before_it_out_of_risk() -> None:
    stakes = Stakes()
    stakes.cell_begins()
    stakes.cell_ended(time.monotonic() + 1.0)
    stakes.taken(0.01)
    assert not stakes.are_high("auto", 0.1)
    stakes.is_dirty = True
    assert not stakes.are_high("auto", 0.1)  # For how short a time it was.


def test_without_a_cell_user_code_may_have_run_and_has_to_be_looked_for() -> None:
    stakes = Stakes()
    assert stakes.may_be_high("auto", 0.1)
    assert not stakes.are_high("auto", 0.1)


def test_a_promoted_copy_has_no_snapshot_of_its_own_and_wants_one() -> None:
    stakes = Stakes()
    stakes.taken(0.01)
    before = stakes.is_first
    stakes.revive()
    assert (before, stakes.is_first, stakes.cells) == (False, True, 1)
