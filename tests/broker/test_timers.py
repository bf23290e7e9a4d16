"""Deadlines: every introspection is answered in time, and nothing is kept for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pump import Pump, make_request
from unstuck.protocol import (
    SetConcurrencyMode,
)
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker.timers import Timers
from words import tell

BLOCKING = SetConcurrencyMode(KernelConcurrencyMode.blocking)


def test_an_introspection_that_the_worker_does_not_answer_is_answered_in_time(pump: Pump) -> None:
    pump.send(make_request("complete_request", "m1", content={"code": "abc", "cursor_pos": 2}))
    assert pump.pass_time(9.9) == []
    assert tell(pump.pass_time(0.2)) == ["m1 complete_reply ok", "m1 idle"]
    reply = pump.ledger.replies["m1"][0]
    assert (reply["matches"], reply["cursor_start"], reply["cursor_end"]) == ([], 2, 2)
    assert pump.finish("m1") == []


def test_an_introspection_that_waits_for_a_worker_is_answered_in_time() -> None:
    pump = Pump()
    pump.send(make_request("inspect_request", "m1"))
    assert tell(pump.pass_time(10.0)) == ["m1 busy", "m1 inspect_reply ok", "m1 idle"]
    assert tell(pump.ready()) == []


def test_an_introspection_behind_a_blocking_cell_is_answered_in_time(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.send(make_request("is_complete_request", "m2"))
    pump.pass_time(5.0)
    pump.send(make_request("history_request", "m3"))
    unknown = ["m2 busy", "m2 is_complete_reply unknown", "m2 idle"]
    assert tell(pump.pass_time(5.0)) == [*unknown, "still busy"]
    assert tell(pump.finish("m1"))[2:] == ["m3 busy", "thread lane: run m3"]
    assert tell(pump.pass_time(5.0)) == ["m3 history_reply error TimeoutError", "m3 idle"]


def test_an_overdue_introspection_in_blocking_mode_opens_shell_again() -> None:
    pump = Pump()
    pump.ready()
    pump.say(BLOCKING)
    pump.send(make_request("complete_request", "m1"))
    pump.execute("m2")
    assert tell(pump.pass_time(10.0)) == [
        "m1 complete_reply ok",
        "m1 idle",
        "m2 busy",
        "main lane: run m2",
    ]


def test_an_overdue_introspection_that_waits_for_a_worker_opens_shell_again(pump: Pump) -> None:
    pump.say(BLOCKING)
    pump.control("restart_request", "m1")
    pump.send(make_request("complete_request", "m2"))
    pump.send(make_request("kernel_info_request", "m3"))
    assert tell(pump.pass_time(10.0)) == [
        "m2 busy",
        "m2 complete_reply ok",
        "m2 idle",
        "m3 busy",
        "m3 kernel_info_reply ok",
        "m3 idle",
    ]


def test_thousands_of_overdue_introspections_are_answered_in_one_turn() -> None:
    pump = Pump()
    for number in range(3000):
        pump.send(make_request("complete_request", f"m{number}"))
    assert len(pump.pass_time(10.0)) == 3 * 3000
    assert pump.core.deadline_s() is None


def test_deadlines_of_jobs_that_have_ended_are_forgotten(pump: Pump) -> None:
    for number in range(500):
        pump.execute(f"m{number}", metadata={"timeout": 3600})
        pump.finish(f"m{number}")
    assert len(pump.core.timers) == 0
    assert pump.core.deadline_s() is None


def test_a_deadline_that_is_set_again_counts_alone() -> None:
    timers = Timers()
    timers.set(1, 5.0)
    timers.set(1, 7.0)
    timers.set(2, 6.0)
    assert timers.deadline_s() == 6.0
    assert timers.take_due(6.5) == [2]
    assert timers.take_due(9.0) == [1]
    assert timers.deadline_s() is None


def test_deadlines_come_out_in_their_order_and_dropped_ones_never() -> None:
    timers = Timers()
    for number in range(500):
        timers.set(number, 1000.0 - number)
    for number in range(0, 500, 2):
        timers.drop(number)
        timers.drop(number)
    assert len(timers) == 250
    assert timers.take_due(1000.0) == list(range(499, 0, -2))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 50))))
def test_timers_agree_with_a_plain_dict(steps: list[tuple[bool, int, int]]) -> None:
    timers = Timers()
    plain: dict[int, float] = {}
    for is_set, number, due_s in steps:
        if is_set:
            timers.set(number, due_s)
            plain[number] = due_s
        else:
            timers.drop(number)
            plain.pop(number, None)
        assert timers.deadline_s() == min(plain.values(), default=None)
        assert len(timers) == len(plain)
    due = sorted((due_s, number) for number, due_s in plain.items() if due_s <= 25)
    assert timers.take_due(25) == [number for _, number in due]
