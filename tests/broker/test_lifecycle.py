"""The table of a worker's life, and docs/lifecycle.md, which is drawn from it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

import lifecycle_page
from unstuck_broker.lifecycle import TRANSITIONS, E, IllegalTransition, Life, S

ILLEGAL = [pair for pair in product(S, E) if pair not in TRANSITIONS]


def life_in(state: S) -> Life:
    life = Life()
    life.state = state
    return life


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [(state, event, after) for (state, event), after in TRANSITIONS.items()],
    ids=lambda value: value.name,
)
def test_a_legal_event_leads_to_the_state_of_the_table(before: S, event: E, after: S) -> None:
    life = life_in(before)
    assert life.advance(event) is after
    assert life.state is after


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=lambda value: value.name)
def test_an_illegal_event_raises_and_changes_nothing(state: S, event: E) -> None:
    life = life_in(state)
    with pytest.raises(IllegalTransition, match=f"{event.name} in state {state.name}"):
        life.advance(event)
    assert life.state is state


def test_a_worker_begins_its_life_without_a_shell() -> None:
    assert Life().state is S.STARTING


def test_only_a_worker_with_a_shell_takes_jobs() -> None:
    assert [s for s in S if life_in(s).takes_jobs] == [S.READY, S.BUSY, S.INTERRUPTING]


def test_only_a_stopped_kernel_has_ended() -> None:
    assert [s for s in S if life_in(s).ended] == [S.STOPPING, S.DEAD]


def test_every_state_can_be_reached() -> None:
    reached = {S.STARTING}
    while more := {to for (state, _), to in TRANSITIONS.items() if state in reached} - reached:
        reached |= more
    assert reached == set(S)


def test_every_state_but_the_last_leads_to_the_last() -> None:
    leading = {S.DEAD}
    while more := {state for (state, _), to in TRANSITIONS.items() if to in leading} - leading:
        leading |= more
    assert leading == set(S)


@pytest.mark.parametrize("event", [E.EXITED, E.STOP_SENT])
def test_a_death_and_a_shutdown_are_taken_in_every_state_before_the_end(event: E) -> None:
    beyond = {S.DEAD} if event is E.EXITED else {S.STOPPING, S.DEAD}
    assert {state for state in S if (state, event) not in TRANSITIONS} == beyond


def test_the_page_is_what_the_table_gives() -> None:
    page = Path(__file__).parents[2] / "docs" / "lifecycle.md"
    assert page.read_text("utf-8") == lifecycle_page.draw(), (
        "out of date: run `PYTHONPATH=kernel:broker python tests/lifecycle_page.py`"
    )
