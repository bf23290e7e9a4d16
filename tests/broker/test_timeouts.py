"""Cells over their time: interrupted, then killed, and answered as what they are."""

from __future__ import annotations

import pytest

from pump import Pump
from unstuck.config import Config, InterruptPolicy
from unstuck_broker.events import LimitExceeded
from unstuck_broker.lifecycle import S
from unstuck_broker.reason import TIMEOUT, Why, over_limit
from words import evalues, tell

MEMORY = over_limit(Why.MEMORY, 2_000_000_000, 1_000_000_000)


def ready(policy: InterruptPolicy = "auto", timeout_s: float = 0.0) -> Pump:
    pump = Pump(Config(interrupt_policy=policy, cell_timeout_s=timeout_s))
    pump.ready()
    return pump


# --- timeouts -------------------------------------------------------------------------------------


def test_a_cell_over_its_time_is_interrupted_and_its_reply_is_a_timeout() -> None:
    pump = ready()
    pump.execute("m1", metadata={"timeout": 3})
    pump.execute("m2")
    assert tell(pump.pass_time(3.0)) == ["SIGINT"]
    assert pump.publish("m1", "error", b'{"ename": "KeyboardInterrupt"}') == []
    content = b'{"status":"error","traceback":["File cell, line 3"]}'
    actions = pump.fail("m1", content=content)
    assert tell(actions) == [
        "m1 error TimeoutError",
        "m1 execute_reply error TimeoutError",
        "m1 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
    ]
    evalue = "the cell did not end within its timeout of 3 s"
    assert evalues(actions) == [evalue]
    assert pump.ledger.replies["m1"][0]["traceback"] == [
        "File cell, line 3",
        f"TimeoutError: {evalue}",
    ]


def test_a_cell_that_swallows_its_timeout_is_answered_with_it_all_the_same(pump: Pump) -> None:
    pump.execute("m1", metadata={"tags": ["timeout=1"]})
    pump.execute("m2")
    pump.pass_time(1.0)
    assert tell(pump.finish("m1"))[1:] == [
        "m1 execute_reply error TimeoutError",
        "m1 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
    ]


def test_a_cell_that_suppresses_its_errors_suppresses_its_timeout(pump: Pump) -> None:
    pump.execute("m1", metadata={"tags": ["timeout=1", "suppress-error"]})
    pump.execute("m2")
    assert tell(pump.pass_time(1.0)) == ["SIGINT"]
    assert tell(pump.finish("m1"))[:3] == ["m1 execute_reply ok", "m1 idle", "m2 busy"]


@pytest.mark.parametrize("policy", ["auto", "never", "always"])
def test_a_timeout_kills_at_the_grace_whatever_the_policy(policy: InterruptPolicy) -> None:
    pump = ready(policy, timeout_s=1.0)
    pump.execute("m1")
    pump.pass_time(1.0)
    assert tell(pump.pass_time(2.0))[-1] == "kill: the cell did not end within its timeout"
    actions = pump.die(9, reason=TIMEOUT)
    assert "m1 execute_reply error TimeoutError" in tell(actions)
    assert evalues(actions)[0].startswith("the cell ran longer than 1 s; ")


def test_the_time_of_a_cell_begins_when_it_starts() -> None:
    pump = ready(timeout_s=2.0)
    pump.execute("m1")
    pump.execute("m2")
    pump.pass_time(1.5)
    pump.finish("m1")
    assert pump.pass_time(1.5) == []
    assert tell(pump.pass_time(0.5)) == ["SIGINT"]


def test_a_timeout_leaves_the_interrupt_of_another_cell_alone(pump: Pump) -> None:
    pump.execute("m1", "##thread")
    pump.execute("m2", metadata={"timeout": 1})
    pump.interrupt("m1")
    pump.pass_time(1.0)
    pump.finish("m2")
    assert pump.core.life.state is S.INTERRUPTING
    assert tell(pump.pass_time(1.0)) == ["take stack 0"]


def test_a_timeout_of_an_interrupted_cell_begins_anew_and_kills(pump: Pump) -> None:
    pump.execute("m1", metadata={"timeout": 1})
    pump.interrupt()
    pump.pass_time(0.9)
    assert tell(pump.pass_time(0.1)) == ["SIGINT"]
    assert tell(pump.pass_time(2.0)) == [
        "thread lane: interrupt 1 hard",
        "SIGINT to the tree",
        "kill: the cell did not end within its timeout",
    ]


def test_a_timeout_of_a_cell_whose_worker_is_being_killed_changes_nothing(pump: Pump) -> None:
    pump.execute("m1", metadata={"timeout": 1})
    pump.feed(LimitExceeded(MEMORY))
    assert pump.pass_time(5.0) == []
    assert "m1 execute_reply error TimeoutError" in tell(pump.die(9, reason=MEMORY))
