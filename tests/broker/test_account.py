"""What is told of a recovery."""

from __future__ import annotations

import json

import pytest

from pump import make_word
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker.account import MIME_TYPE, make_account, name_effects, prospect
from unstuck_broker.copies import Copy, Effect

DIED = "the worker died by SIGSEGV"


def make_copy(
    *since: int | None, name: str = "", comms: frozenset[str] = frozenset(), **more: object
) -> Copy:
    """Make a copy after which cells with these execution counts ran."""
    effects = [Effect(at, cell, is_cell=cell is not None) for at, cell in enumerate(since)]
    word = make_word(4, name=name, cell=3, **more)
    return Copy(4, name, comms, KernelConcurrencyMode.default, effects, word)


@pytest.mark.parametrize(
    ("cells", "others", "words"),
    [
        ([], 0, ""),
        ([3], 0, "cell [3]"),
        ([3, 4], 0, "cells [3]-[4]"),
        ([3, 5, 6, 7, 9], 1, "cells [3], [5]-[7], [9] and 1 other request"),
        ([], 2, "2 other requests"),
    ],
)
def test_cells_are_named_with_neighbours_as_a_range(
    cells: list[int], others: int, words: str
) -> None:
    assert name_effects(cells, others) == words


def test_a_current_copy_brings_back_what_was_before_the_cell() -> None:
    account = make_account(make_copy(), DIED, "promotion", 0.0124)
    line = account.line()
    assert line.startswith(
        "[unstuck] The worker died by SIGSEGV. "
        "The variables are as they were before this cell (snapshot of "
    )
    assert line.endswith(", promotion, 12 ms).\n")


def test_a_stale_copy_names_the_cells_whose_effects_are_missing() -> None:
    account = make_account(make_copy(4, 5, None), DIED, "promotion", 0.01)
    assert account.state() == (
        "the variables are as they were after cell [3]; missing: cells [4]-[5] and 1 other request"
    )
    assert account.missing_cells == [4, 5]


def test_what_is_lost_and_what_failed_is_named() -> None:
    copy = make_copy(kind="donor", lost=["thread poll"])
    failed = [("db", "cannot pickle a connection")]
    account = make_account(copy, DIED, "transplant", 2.34, failed=failed, came=7)
    assert account.state() == "the variables are as they were before this cell, but for db"
    line = account.line()
    assert "transplant, 2.3 s)" in line
    assert "Not back: thread poll." in line
    assert "Not taken over: db (cannot pickle a connection)." in line


def test_widgets_come_back_by_promotion_alone() -> None:
    told = make_copy(comms=frozenset({"c1"}))
    assert make_account(told, DIED, "promotion", 0.01).lost == []
    told = make_copy(kind="donor", lost=["thread poll"], comms=frozenset({"c1"}))
    lost = ["thread poll", "the widgets in the page"]
    assert make_account(told, DIED, "transplant", 0.01).lost == lost
    assert prospect(told).endswith("; lost: thread poll, the widgets in the page")


def test_the_account_is_data_for_frontends_too() -> None:
    account = make_account(make_copy(4, name="clean"), DIED, "promotion", 0.01)
    content = json.loads(account.display_data())
    assert content["data"]["text/plain"] == "unstuck: promotion in 10 ms"
    data = content["data"][MIME_TYPE]
    assert data["way"] == "promotion"
    assert data["snapshot"] == 4
    assert data["name"] == "clean"
    assert data["missing_cells"] == [4]
    assert data["cause"] == DIED


def test_a_rewind_tells_what_is_undone() -> None:
    account = make_account(make_copy(4, name="clean"), "rewind", "promotion", 0.01, is_rewind=True)
    assert account.state() == "the variables are as they were after cell [3]; undone: cell [4]"
    assert account.line().startswith("[unstuck] The variables are ")


def test_the_prospect_says_what_a_kill_would_cost() -> None:
    assert prospect(None) == "all variables of this session will be lost"
    assert prospect(make_copy()) == "the variables will be as they were before this cell"
    assert prospect(make_copy(4)).endswith("after cell [3]; missing: cell [4]")
    told = prospect(make_copy(kind="donor", lost=["thread poll"]))
    assert told.endswith("; what cannot be pickled will be lost; lost: thread poll")
