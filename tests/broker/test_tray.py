"""The next cell is lent to the worker, and comes back for all that happens to the queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pump import Pump
from unstuck.config import Config
from unstuck.protocol import Finished, Outcome, SetConcurrencyMode
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker import replies
from unstuck_broker.events import Ticked
from unstuck_broker.reason import Why, over_limit
from words import shown, tell

MEMORY = over_limit(Why.MEMORY, 2, 1)


def lent(pump: Pump) -> str | None:
    """Name the cell that lies in the tray."""
    return None if pump.tray is None else str(json.loads(pump.tray.header)["msg_id"])


def test_the_next_cell_is_lent_while_one_runs(pump: Pump) -> None:
    pump.execute("m1")
    assert lent(pump) is None
    pump.execute("m2")
    assert lent(pump) == "m2"
    pump.execute("m3")
    assert lent(pump) == "m2"


def test_a_cell_that_was_taken_starts_without_an_order(pump: Pump) -> None:
    for name in ("m1", "m2", "m3"):
        pump.execute(name)
    assert pump.take_next()
    assert tell(pump.finish("m1")) == ["m1 execute_reply ok", "m1 idle", "m2 busy"]
    assert lent(pump) == "m3"
    assert tell(pump.finish("m2"))[2:] == ["m3 busy", "main lane: run m3"]
    assert tell(pump.finish("m3")) == ["m3 execute_reply ok", "m3 idle"]


def test_a_cell_that_was_not_taken_is_ordered_and_lies_there_no_more(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    assert tell(pump.finish("m1"))[2:] == ["m2 busy", "main lane: run m2"]
    assert lent(pump) is None


def test_outputs_of_a_taken_cell_are_under_it(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.take_next()
    pump.finish("m1")
    assert tell(pump.publish("m2", "display_data", b"{}")) == ["m2 display_data"]


@pytest.mark.parametrize("code", ["##task", "##thread", "##process", "##blocking"])
def test_only_cells_of_the_queue_are_lent(pump: Pump, code: str) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2", code)
    assert lent(pump) is None
    pump.finish("m1")
    assert lent(pump) is None


def test_nothing_is_lent_in_a_subshell(pump: Pump) -> None:
    pump.control("create_subshell_request", "s1")
    subshell = str(pump.ledger.replies["s1"][0]["subshell_id"])
    pump.execute("m1", subshell=subshell)
    pump.execute("m2", subshell=subshell)
    assert lent(pump) is None


def test_nothing_is_lent_before_the_worker_is_there() -> None:
    pump = Pump()
    pump.execute("m1")
    pump.execute("m2")
    assert lent(pump) is None
    pump.ready()
    assert lent(pump) == "m2"


@pytest.mark.parametrize("part", ["content", "metadata", "parent"])
def test_what_is_large_is_not_lent(pump: Pump, part: str) -> None:
    large: dict[str, Any] = {part: {"large": "x" * 40_000}}
    pump.execute("m1")
    pump.execute("m2", **large)
    assert lent(pump) is None
    assert tell(pump.finish("m1"))[2:] == ["m2 busy", "main lane: run m2"]


def test_nothing_is_lent_behind_a_cell_with_a_timeout() -> None:
    pump = Pump(Config(cell_timeout_s=5.0))
    pump.ready()
    pump.execute("m1")
    pump.execute("m2")
    assert lent(pump) is None


def test_an_error_aborts_what_was_lent(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    assert tell(pump.fail("m1"))[2:] == ["m2 busy", "m2 execute_reply aborted", "m2 idle"]
    assert lent(pump) is None


def test_a_failed_blocking_cell_aborts_what_lies_there_and_not_what_was_taken(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.execute("m3", "##blocking")
    pump.take_next()
    pump.execute("m4")
    aborted = ["m4 busy", "m4 execute_reply aborted", "m4 idle"]
    assert tell(pump.fail("m3"))[2:] == [*aborted, "still busy"]
    assert tell(pump.finish("m1"))[2:] == ["m2 busy"]


def test_a_failed_blocking_cell_aborts_a_cell_that_nobody_took(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.execute("m3", "##blocking")
    aborted = ["m2 busy", "m2 execute_reply aborted", "m2 idle"]
    assert [line for line in tell(pump.fail("m3")) if line in aborted] == aborted
    assert lent(pump) is None
    assert tell(pump.finish("m1")) == ["m1 execute_reply ok", "m1 idle"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_restart_aborts_what_was_lent_and_ends_what_was_taken(pump: Pump, *, taken: bool) -> None:
    pump.execute("m1")
    pump.execute("m2")
    if taken:
        pump.take_next()
    lines = tell(pump.control("restart_request", "r1"))
    own = [line for line in lines if line.startswith("m2")]
    if taken:
        ended = ["m2 error KernelRestarted", "m2 execute_reply error KernelRestarted"]
        assert own == ["m2 busy", *ended, "m2 idle"]
    else:
        assert own == ["m2 busy", "m2 execute_reply aborted", "m2 idle"]
    assert lent(pump) is None
    # What the stopping worker still says about it is nobody's.
    pump.tray = pump.taken = None
    pump.die(None, 0)
    pump.renew()
    assert tell(pump.execute("m3")) == ["m3 busy", "main lane: run m3"]


@pytest.mark.parametrize("taken", [False, True])
def test_what_was_lent_to_a_worker_that_died_waits_like_the_others(
    pump: Pump, *, taken: bool
) -> None:
    pump.execute("m1", content={"stop_on_error": False})
    pump.execute("m2")
    pump.execute("m3")
    if taken:
        pump.take_next()
    lines = shown(tell(pump.die()))
    assert lines[-1] == "spawn"
    assert not [line for line in lines if line.startswith(("m2", "m3"))]
    assert tell(pump.renew()) == ["m2 busy", "main lane: run m2"]
    assert lent(pump) == "m3"


def test_nothing_is_lent_while_the_worker_is_killed(pump: Pump) -> None:
    pump.execute("m1", content={"stop_on_error": False})
    pump.core.recovery.kill(MEMORY)
    pump.execute("m2")
    assert lent(pump) is None


def test_an_interrupt_of_a_cell_that_is_over_hits_no_other(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.take_next()
    assert pump.interrupt("m1") == []
    assert tell(pump.finish("m1"))[2:] == ["m2 busy"]
    assert pump.interrupt("m2", number=2) == ["SIGINT"]


def test_what_was_lent_is_taken_back_from_an_interrupted_cell(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    assert pump.interrupt("m1") == ["SIGINT"]
    assert lent(pump) is None
    assert tell(pump.fail("m1"))[2:] == ["m2 busy", "m2 execute_reply aborted", "m2 idle"]


def test_a_changed_concurrency_mode_does_not_change_who_is_next(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.say(SetConcurrencyMode(KernelConcurrencyMode.blocking))
    assert not pump.take_next()
    assert tell(pump.finish("m1"))[2:] == ["m2 busy", "main lane: run m2"]


def test_a_cell_whose_end_is_held_back_is_followed_once(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    job = pump.job_of("m1")
    assert pump.end(Finished(job, Outcome.ok, replies.OK, is_captured=True)) == []
    lines = tell(pump.pass_time(1.0))
    assert lines == ["m1 execute_reply ok", "m1 idle", "m2 busy", "main lane: run m2"]
    assert lent(pump) is None
    assert tell(pump.finish("m2")) == ["m2 execute_reply ok", "m2 idle"]


def test_a_cell_that_was_answered_before_its_end_is_followed_by_what_was_taken(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    job = pump.core.running[pump.job_of("m1")]
    pump.take_next()
    pump.core.fail(job, "Error", "answered by something else", [])
    pump.core.conclude(job)
    assert tell(pump.feed(Ticked()))[-1] == "m2 busy"


def test_what_is_lent_counts_as_waiting(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    assert len(pump.core.backlog) == 1
    assert pump.core.pending
    assert pump.core.waiting_bytes > 0
    pump.take_next()
    pump.finish("m1")
    pump.finish("m2")
    assert pump.core.waiting_bytes == 0
    assert not pump.core.pending
