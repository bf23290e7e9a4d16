"""A cell whose outputs a widget took is answered when its client has sent them back, or soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pump import Pump, make_request
from unstuck.protocol import Finished, Outcome
from unstuck_broker.echoes import LIMIT_S, QUIET_S
from words import tell

if TYPE_CHECKING:
    from unstuck_broker.actions import Action

ANSWERED = ["m1 execute_reply ok", "m1 idle"]


def end_captured(pump: Pump, msg_id: str = "m1") -> list[Action]:
    job = pump.job_of(msg_id)
    pump.jobs.pop(job)
    return pump.say(Finished(job, Outcome.ok, b'{"status":"ok"}', is_captured=True))


def send_back(pump: Pump, msg_id: str) -> list[Action]:
    return pump.send(make_request("comm_msg", msg_id, content={"comm_id": "c", "data": {}}))


def test_the_reply_waits_for_what_the_client_sends_back(pump: Pump) -> None:
    pump.execute("m1")
    assert end_captured(pump) == []
    pump.pass_time(LIMIT_S / 2)
    send_back(pump, "c1")
    assert pump.pass_time(QUIET_S / 2) == []
    assert tell(pump.pass_time(QUIET_S))[:2] == ANSWERED


def test_what_came_back_before_the_end_shortens_the_wait(pump: Pump) -> None:
    pump.execute("m1")
    send_back(pump, "c1")
    assert end_captured(pump) == []
    assert tell(pump.pass_time(QUIET_S))[:2] == ANSWERED


def test_each_message_prolongs_the_wait_up_to_its_limit(pump: Pump) -> None:
    pump.execute("m1")
    assert end_captured(pump) == []
    told: list[str] = []
    for number in range(int(LIMIT_S / QUIET_S) + 2):
        is_early = number * QUIET_S * 0.9 < LIMIT_S
        assert not (is_early and told), "answered before the limit"
        actions = send_back(pump, f"c{number}") + pump.pass_time(QUIET_S * 0.9)
        told += [line for line in tell(actions) if line.startswith("m1")]
    assert told == ANSWERED


def test_a_client_that_sends_nothing_back_gets_its_reply_at_the_limit(pump: Pump) -> None:
    pump.execute("m1")
    assert end_captured(pump) == []
    assert pump.pass_time(LIMIT_S * 0.9) == []
    assert tell(pump.pass_time(LIMIT_S * 0.2)) == ANSWERED


def test_a_worker_that_dies_does_not_take_the_reply_along(pump: Pump) -> None:
    pump.execute("m1")
    assert end_captured(pump) == []
    assert tell(pump.die())[:2] == ANSWERED


def test_a_reply_without_captures_waits_for_nothing(pump: Pump) -> None:
    pump.execute("m1")
    assert tell(pump.finish("m1")) == ANSWERED
