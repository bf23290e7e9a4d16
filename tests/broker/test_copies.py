"""The book of copies: what is kept, what is dropped, which one comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pump import make_word
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker.copies import Copies, Copy, Effect

MB = 10**6


def begin(copies: Copies, number: int, name: str = "") -> None:
    copies.begin(Copy(number, name, frozenset(), KernelConcurrencyMode.default))


def add(copies: Copies, number: int, name: str = "", *, count: int = 3) -> list[int]:
    """Let a snapshot be taken; give what is dropped for it."""
    begin(copies, number, name)
    return copies.appear(make_word(number, name=name), count)


def run_cell(copies: Copies, cell: int) -> None:
    copies.ended(Effect(cell, cell, is_cell=True))


def numbers(copies: Copies) -> list[int]:
    return [copy.number for copy in copies.ready()]


def test_the_previous_copy_is_kept_until_the_new_one_is_ready() -> None:
    copies = Copies()
    add(copies, 1)
    begin(copies, 2)
    assert numbers(copies) == [1]
    assert copies.appear(make_word(2), 3) == [1]
    assert numbers(copies) == [2]


def test_the_newest_copy_from_before_the_last_cell_is_kept_for_a_rewind() -> None:
    copies = Copies()
    add(copies, 1)
    run_cell(copies, 1)
    assert add(copies, 2) == []
    run_cell(copies, 2)
    assert add(copies, 3) == [1]
    found = copies.one_cell_back()
    assert found is not None
    assert found.number == 2
    assert add(copies, 4) == [3]
    assert numbers(copies) == [2, 4]


def test_a_spare_stays_when_its_copy_becomes_the_worker() -> None:
    copies = Copies()
    add(copies, 1)
    assert copies.appear(make_word(1, is_spare=True, pid=8001), 3) == []
    run_cell(copies, 1)
    copy = copies.newest()
    assert copy is not None
    copies.forget(1)
    assert copies.promoted(copy) == []
    assert numbers(copies) == [1]
    assert copy.is_current
    assert copy.word is not None
    assert copy.word.pid == 8001
    copies.forget(1)
    assert numbers(copies) == []


@pytest.mark.parametrize(("ended", "left"), [(9001, 8001), (8001, 9001)])
def test_of_a_copy_and_its_spare_either_may_end(ended: int, left: int) -> None:
    copies = Copies()
    add(copies, 1)
    copies.appear(make_word(1, is_spare=True, pid=8001), 3)
    copies.forget(1, ended)
    copy = copies.newest()
    assert copy is not None
    assert copy.word is not None
    assert (copy.word.pid, copy.spare) == (left, None)
    copies.forget(1, left)
    assert numbers(copies) == []


def test_a_spare_of_a_copy_that_nobody_keeps_is_dropped() -> None:
    copies = Copies()
    add(copies, 1)
    add(copies, 2)
    assert copies.appear(make_word(1, is_spare=True), 3) == [1]
    assert copies.appear(make_word(3, is_spare=True), 3) == [3]
    assert numbers(copies) == [2]


def test_of_named_copies_the_newest_are_kept_and_one_of_each_name() -> None:
    copies = Copies()
    for number, name in enumerate(["a", "b", "b", "c"], 1):
        add(copies, number, name, count=2)
    assert numbers(copies) == [3, 4]
    found = copies.named("b")
    assert found is not None
    assert found.number == 3
    assert copies.named("a") is None
    assert copies.named("4") is copies.get(4)


def test_a_name_goes_before_a_number() -> None:
    copies = Copies()
    add(copies, 1, "2")
    add(copies, 2, "x")
    found = copies.named("2")
    assert found is not None
    assert found.number == 1


def test_a_copy_that_nobody_expects_is_dropped() -> None:
    copies = Copies()
    assert copies.appear(make_word(7), 3) == [7]
    begin(copies, 8)
    copies.forget_unborn()
    assert copies.appear(make_word(8), 3) == [8]
    assert len(copies) == 0


def test_a_copy_is_faithful_only_while_nothing_has_run_since() -> None:
    copies = Copies()
    add(copies, 1)
    newest = copies.newest()
    assert newest is not None
    assert newest.is_faithful
    copies.ended(Effect(5, None, is_cell=False))
    assert not newest.is_faithful


def test_a_donor_and_a_copy_that_has_lost_something_are_not_faithful() -> None:
    copies = Copies()
    for number, word in enumerate(
        [make_word(1, kind="donor"), make_word(2, is_faithful=False, lost=["thread x"])], 1
    ):
        begin(copies, number)
        copies.appear(word, 3)
        newest = copies.newest()
        assert newest is not None
        assert newest.is_current
        assert not newest.is_faithful


def test_after_a_rewind_a_later_copy_is_aside_and_never_comes_back_by_itself() -> None:
    copies = Copies()
    add(copies, 1, "start")
    run_cell(copies, 1)
    add(copies, 2, "one")
    run_cell(copies, 2)
    add(copies, 3, "two")
    run_cell(copies, 3)
    add(copies, 4)
    chosen = copies.named("one")
    assert chosen is not None
    copies.forget(chosen.number)
    assert copies.promoted(chosen) == [4]
    newest = copies.newest()
    assert newest is not None
    assert newest.name == "start"
    assert [effect.cell for effect in newest.since] == [1]
    aside = copies.named("two")
    assert aside is not None
    assert aside.is_aside
    assert not aside.is_current


def test_copies_beyond_the_budget_are_dropped_oldest_first_and_the_newest_last() -> None:
    copies = Copies()
    for number in (1, 2, 3):
        add(copies, number, f"name{number}")
    assert copies.measured({1: 10 * MB, 2: 10 * MB, 3: 10 * MB}, 30 * MB, 25 * MB) == [1]
    assert copies.measured({2: 10 * MB, 3: 10 * MB}, 30 * MB, 5 * MB) == [2, 3]
    assert "cost more than 5 MB" in copies.last_skipped


def test_a_copy_that_costs_too_much_alone_goes_first() -> None:
    copies = Copies()
    for number in (1, 2, 3):
        add(copies, number, f"name{number}")
    assert copies.measured({1: MB, 2: 90 * MB, 3: MB}, 92 * MB, 50 * MB) == [2]


def test_what_was_skipped_is_known_until_the_next_snapshot() -> None:
    copies = Copies()
    begin(copies, 1)
    copies.skip(1, "memory is short")
    assert copies.last_skipped == "memory is short"
    assert len(copies) == 0
    assert copies.highest == 1


@given(
    st.lists(st.tuples(st.sampled_from(["cell", "", "a", "b", "c"]), st.booleans()), max_size=30),
    st.integers(0, 3),
)
def test_whatever_is_taken_the_newest_is_kept_and_the_ring_is_bounded(
    steps: list[tuple[str, bool]], count: int
) -> None:
    copies = Copies()
    for number, (step, fails) in enumerate(steps, 1):
        if step == "cell":
            run_cell(copies, number)
        elif fails:
            begin(copies, number)
            copies.skip(number, "why")
        else:
            add(copies, number, step, count=count)
            newest = copies.newest()
            assert newest is not None
            assert newest.number == number
            assert newest.is_current
        assert len(copies.ready()) <= count + 2
        lacking = [c.number for c in copies.ready() if c.since]
        back = copies.one_cell_back()
        assert (back.number if back else None) == max(lacking, default=None)
