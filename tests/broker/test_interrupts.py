"""Interrupts and timeouts: whom they aim at, how far they go, and what they abort."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pump import Pump, make_request
from unstuck.config import Config, InterruptPolicy
from unstuck.protocol import Caught
from unstuck_broker.events import LimitExceeded, Signalled, StackTaken
from unstuck_broker.ladder import TRACEBACK_S
from unstuck_broker.lifecycle import S
from unstuck_broker.reason import INTERRUPT, Why, over_limit
from words import tell

MEMORY = over_limit(Why.MEMORY, 2_000_000_000, 1_000_000_000)
ANSWERED = ["i1 busy", "i1 interrupt_reply ok", "i1 idle"]


def ready(policy: InterruptPolicy = "auto", timeout_s: float = 0.0) -> Pump:
    pump = Pump(Config(interrupt_policy=policy, cell_timeout_s=timeout_s))
    pump.ready()
    return pump


# --- whom it aims at ------------------------------------------------------------------------------


def test_with_nothing_running_it_does_nothing(pump: Pump) -> None:
    assert tell(pump.control("interrupt_request", "i1")) == ANSWERED
    assert pump.core.life.state is S.READY


def test_it_reaches_the_cell_of_the_main_queue_by_sigint(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##task")
    pump.execute("m3", "##thread")
    pump.send(make_request("comm_msg", "m4"))
    assert tell(pump.control("interrupt_request", "i1")) == ["SIGINT", *ANSWERED, "still busy"]
    assert pump.core.life.state is S.INTERRUPTING


def test_a_terminal_s_control_c_is_an_interrupt(pump: Pump) -> None:
    pump.execute("m1")
    assert tell(pump.feed(Signalled())) == ["SIGINT"]


def test_without_a_queue_cell_it_reaches_all_task_and_thread_cells_by_name(pump: Pump) -> None:
    pump.execute("m1", "##task")
    pump.execute("m2", "##thread")
    pump.send(make_request("complete_request", "m3"))
    assert pump.interrupt() == ["thread lane: interrupt 1, 2"]


def test_without_any_cell_it_reaches_what_occupies_the_main_thread(pump: Pump) -> None:
    pump.send(make_request("comm_msg", "m1"))
    pump.send(make_request("complete_request", "m2"))
    assert pump.interrupt() == ["SIGINT"]


@pytest.mark.parametrize(
    ("msg_id", "done"),
    [
        ("m1", ["SIGINT"]),
        ("m2", ["thread lane: interrupt 2"]),
        ("m3", ["thread lane: interrupt 3"]),
        ("m4", ["thread lane: interrupt 4"]),
        ("m5", ["thread lane: interrupt 5"]),
        ("unknown", []),
        ("", ["SIGINT"]),
    ],
)
def test_a_message_id_aims_at_that_request_alone(pump: Pump, msg_id: str, done: list[str]) -> None:
    pump.execute("m1")
    pump.execute("m2", "##task")
    pump.execute("m3", "##thread")
    pump.send(make_request("comm_msg", "m4"))
    pump.send(make_request("complete_request", "m5"))
    assert pump.interrupt(msg_id) == done


def test_of_two_cells_in_the_main_thread_one_is_interrupted_by_name(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##blocking")
    assert pump.interrupt("m1") == ["thread lane: interrupt 1"]
    assert pump.interrupt(number=2) == ["SIGINT"]


# --- climbing -------------------------------------------------------------------------------------


def test_it_climbs_to_the_stack_and_there_asks_the_user(pump: Pump) -> None:
    pump.execute("m1")
    pump.interrupt()
    assert tell(pump.pass_time(0.5)) == ["thread lane: interrupt 1 hard", "SIGINT to the tree"]
    assert tell(pump.pass_time(1.5)) == ["take stack 0"]
    pump.settle()
    (shown,) = tell(pump.pass_time(1.0))
    assert "still running 2 s after the interrupt; interrupt again to kill it" in shown
    assert "File x, line 3" in shown
    assert pump.core.deadline_s() is None
    assert pump.interrupt(number=2) == ["kill: the cell did not react to its interrupt"]
    assert pump.core.life.state is S.KILLED


def test_a_second_interrupt_before_the_message_only_signals_again(pump: Pump) -> None:
    pump.execute("m1")
    pump.interrupt()
    assert pump.interrupt(number=2) == ["SIGINT"]
    pump.pass_time(2.0)
    assert pump.interrupt(number=3) == ["SIGINT"]
    pump.settle()
    assert pump.interrupt(number=4) == ["kill: the cell did not react to its interrupt"]


def test_policy_always_kills_at_the_grace() -> None:
    pump = ready("always")
    pump.execute("m1")
    pump.interrupt()
    assert tell(pump.pass_time(2.0)) == [
        "thread lane: interrupt 1 hard",
        "SIGINT to the tree",
        "kill: the cell did not react to its interrupt",
    ]


def test_policy_never_says_so_and_only_signals() -> None:
    pump = ready("never")
    pump.execute("m1")
    pump.interrupt()
    pump.pass_time(2.0)
    pump.settle()
    assert "interrupt_policy is never" in tell(pump.pass_time(1.0))[0]
    assert pump.interrupt(number=2) == ["SIGINT"]
    assert pump.core.life.state is S.INTERRUPTING


def test_a_cell_that_ends_takes_its_ladder_with_it(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.interrupt()
    pump.fail("m1", stop_on_error=False)
    assert pump.core.life.state is S.BUSY
    assert pump.core.deadline_s() is None
    assert pump.interrupt(number=2) == ["SIGINT"]
    assert pump.core.deadline_s() == pump.now + 0.5


def test_the_stack_of_an_ended_cell_is_not_shown_under_the_next(pump: Pump) -> None:
    pump.execute("m1")
    pump.interrupt()
    pump.pass_time(2.0)
    pump.finish("m1")
    pump.execute("m2")
    pump.interrupt(number=2)
    pump.settle()
    assert pump.pass_time(0.4) == []


def test_the_interrupts_of_two_cells_climb_side_by_side(pump: Pump) -> None:
    pump.execute("m1", "##thread")
    pump.execute("m2", "##task")
    pump.interrupt("m1")
    pump.pass_time(0.2)
    pump.interrupt("m2", number=2)
    assert tell(pump.pass_time(0.5)) == [
        "thread lane: interrupt 1 hard",
        "thread lane: interrupt 2 hard",
    ]
    pump.finish("m2")
    assert tell(pump.pass_time(2.0)) == ["take stack 0"]
    pump.finish("m1")
    assert pump.core.life.state is S.READY


def test_a_cell_that_starts_later_joins_with_a_ladder_of_its_own(pump: Pump) -> None:
    pump.execute("m1", "##task")
    pump.interrupt()
    pump.pass_time(0.4)
    pump.execute("m2", "##task")
    assert pump.interrupt(number=2) == ["thread lane: interrupt 1, 3"]
    assert tell(pump.pass_time(0.2)) == ["thread lane: interrupt 1 hard"]
    assert tell(pump.pass_time(0.4)) == ["thread lane: interrupt 3 hard"]


def test_with_no_grace_at_all_every_rung_is_taken_at_once() -> None:
    pump = Pump(Config(interrupt_policy="always", interrupt_hard_s=0, interrupt_grace_s=0))
    pump.ready()
    pump.execute("m1")
    assert pump.interrupt() == [
        "SIGINT",
        "thread lane: interrupt 1 hard",
        "SIGINT to the tree",
        "kill: the cell did not react to its interrupt",
    ]


# --- cells that take long to say that they were interrupted ---------------------------------------


def test_a_cell_that_makes_its_traceback_is_not_disturbed() -> None:
    pump = ready("always")
    pump.execute("m1")
    pump.interrupt()
    assert tell(pump.say(Caught(1))) == []
    assert pump.pass_time(TRACEBACK_S - 0.1) == []
    assert tell(pump.pass_time(0.1)) == ["kill: the cell did not react to its interrupt"]


def test_a_cell_that_is_interrupted_again_and_again_and_never_ends_is_killed_all_the_same() -> None:
    pump = ready("always")
    pump.execute("m1")
    pump.interrupt()
    done: list[str] = []
    for _ in range(3):
        pump.say(Caught(1))
        done += tell(pump.pass_time(TRACEBACK_S / 2))
    assert done == ["kill: the cell did not react to its interrupt"]


def test_only_when_all_cells_were_reached_the_ladder_waits(pump: Pump) -> None:
    pump.execute("m1", "##task")
    pump.execute("m2", "##task")
    pump.interrupt()
    pump.say(Caught(1))
    pump.say(Caught(99))
    assert tell(pump.pass_time(0.5)) == ["thread lane: interrupt 1, 2 hard"]
    pump.say(Caught(2))
    assert pump.pass_time(TRACEBACK_S - 0.1) == []


# --- ladders and the end of the worker ------------------------------------------------------------


def test_an_interrupt_while_the_worker_is_being_killed_does_nothing(pump: Pump) -> None:
    pump.execute("m1")
    pump.feed(LimitExceeded(MEMORY))
    assert pump.interrupt() == []
    assert pump.core.life.state is S.KILLED


def test_a_ladder_stands_still_while_the_worker_is_being_killed(pump: Pump) -> None:
    pump.execute("m1")
    pump.interrupt()
    pump.feed(LimitExceeded(over_limit(Why.MEMORY, 2, 1)))
    assert pump.core.deadline_s() is None
    assert pump.pass_time(60.0) == []


def test_an_interrupt_while_there_is_no_worker_does_nothing(pump: Pump) -> None:
    pump.die()
    pump.execute("m1")
    assert pump.interrupt() == []


@pytest.mark.parametrize("request_type", ["restart_request", "shutdown_request"])
def test_a_restart_or_shutdown_goes_before_any_ladder(pump: Pump, request_type: str) -> None:
    pump.execute("m1")
    pump.interrupt()
    pump.control(request_type, "r1")
    assert pump.pass_time(60.0) == []
    assert pump.core.deadline_s() is None


def test_a_ladder_is_forgotten_when_its_worker_dies(pump: Pump) -> None:
    pump.execute("m1")
    pump.interrupt()
    pump.die()
    pump.renew()
    pump.execute("m2")
    assert pump.pass_time(60.0) == []
    assert pump.core.life.state is S.BUSY


def test_only_the_cell_that_did_not_react_is_called_interrupted(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##task")
    pump.interrupt()
    pump.pass_time(2.0)
    pump.settle()
    pump.interrupt(number=2)
    actions = tell(pump.die(9, reason=INTERRUPT))
    assert "m1 execute_reply error KeyboardInterrupt" in actions
    assert "m2 execute_reply error WorkerDied" in actions


def test_a_crash_during_an_interrupt_is_called_a_crash(pump: Pump) -> None:
    pump.execute("m1")
    pump.interrupt()
    assert "m1 execute_reply error WorkerDied" in tell(pump.die(11))


def test_a_stack_that_nobody_asked_for_is_ignored(pump: Pump) -> None:
    pump.execute("m1")
    assert pump.feed(StackTaken("s", (0, -1, 5))) == []


# --- what it aborts -------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["send", "send", "send", "interrupt", "end", "fail"]), max_size=40))
def test_an_interrupt_or_error_aborts_exactly_what_was_received_before_it(steps: list[str]) -> None:
    pump = Pump()
    pump.ready()
    waiting: list[str] = []
    running: str | None = None
    horizon: int | None = None
    for at, step in enumerate(steps):
        if step == "send":
            pump.execute(f"m{at}")
            if running is None:
                running = f"m{at}"
            else:
                waiting.append(f"m{at}")
        elif step == "interrupt":
            pump.control("interrupt_request", f"c{at}")
            horizon = len(waiting) if running is not None else None
        elif running is not None:
            actions = tell(pump.finish(running) if step == "end" else pump.fail(running))
            aborted: list[str] = []
            if step == "fail":
                aborted = waiting[:horizon]
                del waiting[:horizon]
            outcome = "ok" if step == "end" else "error ValueError"
            expected = [f"{running} execute_reply {outcome}", f"{running} idle"]
            for msg_id in aborted:
                expected += [f"{msg_id} busy", f"{msg_id} execute_reply aborted", f"{msg_id} idle"]
            running = waiting.pop(0) if waiting else None
            if running is not None:
                expected += [f"{running} busy", f"main lane: run {running}"]
            assert actions == expected
            horizon = None
