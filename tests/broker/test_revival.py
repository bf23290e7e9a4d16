"""A worker that dies while there are copies of it: what comes back, and what is told."""

from __future__ import annotations

import json

from broker.recoveries import BEFORE, LOST, accounts, run_cell
from pump import READY, Pump, make_request
from unstuck.protocol import (
    Received,
    SetConcurrencyMode,
    SetSettings,
    Snapshotted,
    TransplantProgress,
)
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker.actions import PromoteCopy
from unstuck_broker.events import CopiesMeasured, CopyGone, WorkerExited
from unstuck_broker.reason import Reason, Why
from words import evalues, shown, tell

COMM = b'{"comm_id": "c1", "target_name": "t"}'
YOUNG = b'{"comm_id": "c2", "target_name": "t"}'


# --- promotion ------------------------------------------------------------------------------------


def test_a_death_costs_one_cell_where_there_is_a_copy(pump: Pump) -> None:
    pump.snapshot(1)
    pump.execute("m1")
    pump.print("m1", "last words")
    actions = pump.die(11)
    assert tell(actions) == [
        "log worker died state=busy cause='the worker died by SIGSEGV' next_in_s=0",
        "m1 stdout 'last words'",
        "promote copy 1",
    ]
    pump.now += 0.012
    actions = pump.ready()
    lines = shown(tell(actions))
    assert lines[0].startswith("m1 stderr '[unstuck] The worker died by SIGSEGV. The variables are")
    assert lines[1:] == [
        "m1 display_data",
        "m1 error WorkerDied",
        "m1 execute_reply error WorkerDied",
        "m1 idle",
    ]
    assert evalues(actions) == [f"the worker died by SIGSEGV; {BEFORE}"]
    (account,) = accounts(actions)
    assert account["way"] == "promotion"
    assert abs(account["seconds"] - 0.012) < 1e-6
    assert tell(pump.execute("m2")) == ["m2 busy", "main lane: run m2"]


def test_frontends_are_not_told_of_a_restart_when_the_variables_are_back(pump: Pump) -> None:
    pump.snapshot(1)
    pump.execute("m1")
    lines = tell(pump.die()) + tell(pump.ready())
    assert not [line for line in lines if line.startswith("everybody")]


def test_the_copy_is_told_which_numbers_were_used(pump: Pump) -> None:
    run_cell(pump, "m1", 41)
    pump.snapshot(6)
    pump.execute("m2")
    order = next(a for a in pump.die() if isinstance(a, PromoteCopy)).order
    assert (order.job_floor, order.cell_floor, order.snapshot_floor) == (2, 42, 6)


def test_what_waits_behind_the_lost_cell_is_aborted_and_the_rest_runs(pump: Pump) -> None:
    pump.snapshot(1)
    pump.execute("m1")
    pump.execute("m2")
    pump.die()
    pump.execute("m3")
    lines = shown(tell(pump.ready()))
    assert lines[3:] == [
        "m1 execute_reply error WorkerDied", "m1 idle",
        "m2 busy", "m2 execute_reply aborted", "m2 idle",
        "m3 busy", "main lane: run m3",
    ]  # fmt: skip


def test_what_is_no_cell_is_answered_at_once(pump: Pump) -> None:
    pump.snapshot(1)
    pump.execute("m1")
    pump.send(make_request("complete_request", "m2"))
    pump.send(make_request("comm_msg", "m3"))
    assert shown(tell(pump.die())) == [
        "promote copy 1", "m2 complete_reply ok", "m2 idle", "m3 idle", "still busy",
    ]  # fmt: skip


def test_comms_of_the_snapshot_stay_open_and_younger_ones_are_closed(pump: Pump) -> None:
    pump.execute("m1")
    pump.publish("m1", "comm_open", COMM)
    pump.finish("m1")
    pump.say(SetConcurrencyMode(KernelConcurrencyMode.blocking))
    pump.snapshot(1)
    pump.say(SetConcurrencyMode(KernelConcurrencyMode.default))
    pump.execute("m2")
    pump.publish("m2", "comm_open", YOUNG)
    pump.die()
    lines = tell(pump.ready())
    assert [line for line in lines if "comm" in line] == ["everybody: comm_close"]
    assert list(pump.core.comms.info(None)) == ["c1"]
    assert pump.core.concurrency_mode is KernelConcurrencyMode.blocking


def test_a_comm_whose_opening_has_not_run_yet_is_younger_than_the_snapshot(pump: Pump) -> None:
    pump.send(make_request("comm_open", "m1", content=json.loads(YOUNG)))
    pump.snapshot(1)
    pump.die()
    assert "everybody: comm_close" in tell(pump.ready())


def test_a_stale_copy_comes_back_after_a_crash_and_the_missing_cells_are_named(
    pump: Pump,
) -> None:
    run_cell(pump, "m1", 1)
    pump.snapshot(1)
    run_cell(pump, "m2", 2)
    run_cell(pump, "m3", 3)
    pump.execute("m4")
    pump.die()
    actions = pump.ready()
    assert evalues(actions) == [
        "the worker died by SIGSEGV; the variables are as they were after cell [1]; "
        "missing: cells [2]-[3]"
    ]
    assert accounts(actions)[0]["missing_cells"] == [2, 3]


def test_a_cell_that_ends_while_the_fork_runs_is_not_in_the_copy(pump: Pump) -> None:
    pump.execute("m1", "##task")
    pump.begin_snapshot(1)
    pump.finish("m1")
    pump.say(Snapshotted(1, 0.1, 1, 0))
    pump.copy_appears(1)
    pump.execute("m2")
    pump.die()
    assert accounts(pump.ready())[0]["missing_cells"] == [1]


def test_a_cell_that_runs_beside_is_not_in_the_copy_even_if_its_number_is_lower(
    pump: Pump,
) -> None:
    run_cell(pump, "m1", 7)
    pump.core.count = 8
    pump.execute("m2", "##thread")
    pump.snapshot(1, cell=8)
    pump.finish("m2")
    pump.execute("m3")
    pump.die()
    actions = pump.ready()
    assert evalues(actions)[0].endswith(
        "the variables are as they were after cell [7]; missing: cell [8]"
    )
    assert accounts(actions)[0]["cell"] == 7


def test_a_worker_that_dies_idle_comes_back_too(pump: Pump) -> None:
    run_cell(pump, "m1", 1)
    pump.snapshot(1)
    assert shown(tell(pump.die(9))) == ["promote copy 1"]
    lines = shown(tell(pump.ready()))
    assert lines[0].startswith("m1 stderr '[unstuck] The worker died by SIGKILL.")
    assert lines[1:] == ["m1 display_data"]


# --- copies that fail -----------------------------------------------------------------------------


def test_a_copy_that_dies_in_its_promotion_is_followed_by_the_one_before(pump: Pump) -> None:
    run_cell(pump, "m1", 1)
    pump.snapshot(1)
    run_cell(pump, "m2", 2)
    pump.snapshot(2)
    pump.execute("m3")
    assert "promote copy 2" in tell(pump.die())
    assert "promote copy 1" in tell(pump.die(7))
    actions = pump.ready()
    assert evalues(actions)[0].startswith("the worker died by SIGSEGV; ")
    assert accounts(actions)[0]["missing_cells"] == [2]


def test_when_no_copy_gets_up_all_is_lost_and_the_cell_says_so(pump: Pump) -> None:
    pump.snapshot(1)
    pump.execute("m1")
    pump.die()
    actions = pump.feed(WorkerExited(None, None, reason=Reason(Why.START, "it has ended")))
    pump.process = "none"
    assert shown(tell(actions)) == [
        "m1 error WorkerDied", "m1 execute_reply error WorkerDied", "m1 idle",
        "spawn", "everybody: restarting", "everybody: starting",
    ]  # fmt: skip
    assert evalues(actions) == [LOST]


def test_a_copy_that_has_ended_is_not_counted_on(pump: Pump) -> None:
    pump.snapshot(1)
    pump.feed(CopyGone(1, 9001))
    pump.execute("m1")
    assert evalues(pump.die()) == [LOST]


def test_a_copy_that_was_not_there_at_the_death_is_dropped(pump: Pump) -> None:
    pump.begin_snapshot(1)
    pump.say(Snapshotted(1, 0.1, 1, 0))
    pump.execute("m1")
    assert evalues(pump.die()) == [LOST]
    pump.renew()
    assert tell(pump.copy_appears(1)) == ["drop copies 1"]


def test_a_restart_drops_all_copies_and_brings_nothing_back(pump: Pump) -> None:
    pump.snapshot(1, name="a")
    lines = shown(tell(pump.control("restart_request", "r1")))
    assert "drop copies 1" in lines
    assert "spawn" in tell(pump.die(9))


def test_a_worker_that_was_asked_to_end_is_not_copied_any_more(pump: Pump) -> None:
    pump.snapshot(1)
    pump.control("restart_request", "r1")
    floor = pump.core.start_message().snapshot_floor
    pump.begin_snapshot(2)
    assert tell(pump.copy_appears(2)) == ["drop copies 2"]
    assert floor > 2
    assert "spawn" in tell(pump.die(9))
    pump.renew()
    assert tell(pump.snapshot(floor + 1)) == []


def test_a_restart_during_a_recovery_ends_it(pump: Pump) -> None:
    pump.snapshot(1)
    pump.execute("m1")
    pump.die()
    lines = shown(tell(pump.control("restart_request", "r1")))
    assert lines[:3] == ["m1 error KernelRestarted", "m1 execute_reply error KernelRestarted",
                         "m1 idle"]  # fmt: skip
    assert "kill: restart" in lines
    assert "spawn" in tell(pump.die(9))


def test_a_shutdown_during_a_recovery_answers_all(pump: Pump) -> None:
    pump.snapshot(1)
    pump.execute("m1")
    pump.die()
    pump.control("shutdown_request", "s1", restart=False)
    assert pump.ledger.pending() == []


def test_snapshots_that_are_switched_off_are_dropped(pump: Pump) -> None:
    pump.snapshot(1)
    assert tell(pump.say(SetSettings({"snapshots": "off"}))) == ["drop copies 1"]


def test_copies_that_cost_too_much_are_dropped(pump: Pump) -> None:
    pump.snapshot(1)
    assert tell(pump.feed(CopiesMeasured({1: 300}, 300, 200))) == ["drop copies 1"]


# --- transplant -----------------------------------------------------------------------------------


def test_a_donor_gives_its_variables_to_a_fresh_worker(pump: Pump) -> None:
    pump.execute("m1")
    pump.publish("m1", "comm_open", COMM)
    pump.finish("m1")
    pump.snapshot(1, kind="donor", reasons=["polars' thread pool"], is_faithful=False)
    pump.execute("m2")
    assert shown(tell(pump.die())) == ["spawn with donor 1"]
    pump.start()
    assert pump.core.start_message().execution_count == 3
    pump.say(TransplantProgress(3, 9, "x"))
    assert tell(pump.pass_time(0.1)) == ["m2 stderr '\\r[unstuck] taking variables over: 3 of 9'"]
    pump.say(Received(8, [("db", "cannot pickle")], 100, 0.5))
    actions = pump.ready()
    lines = shown(tell(actions))
    assert lines[1] == "m2 stderr '\\r[unstuck] taking variables over: done  \\n'"
    assert lines[2].startswith("m2 stderr '[unstuck] The worker died by SIGSEGV. ")
    assert "everybody: comm_close" in lines
    assert "everybody: restarting" not in lines
    (account,) = accounts(actions)
    assert account["way"] == "transplant"
    assert account["came"] == 8
    assert account["failed"] == [["db", "cannot pickle"]]


def test_a_donor_that_gives_nothing_is_followed_by_the_copy_before(pump: Pump) -> None:
    pump.snapshot(1, name="a")
    pump.snapshot(2, kind="donor", is_faithful=False)
    pump.execute("m1")
    pump.die()
    pump.start()
    lines = tell(pump.say(Received(0, [("all variables", "it did not answer")], 0, 0.1)))
    assert lines == ["kill: nothing came out of the snapshot: it did not answer"]
    assert tell(pump.say(READY)) == []  # It was on its way.
    assert shown(tell(pump.die(9))) == ["promote copy 1"]


def test_a_donor_whose_variables_all_cannot_come_was_still_carried_over(pump: Pump) -> None:
    pump.snapshot(1, kind="donor", is_faithful=False)
    pump.execute("m1")
    pump.die()
    pump.start()
    pump.say(Received(0, [("db", "cannot pickle a connection")], 400, 0.1))
    assert accounts(pump.ready())[0]["failed"] == [["db", "cannot pickle a connection"]]
