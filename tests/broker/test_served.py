"""Requests that the broker answers by itself, whatever the worker does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pump import FACTS, Pump, make_request
from unstuck.typing import BrokerMsgType, MsgType, SocketID
from unstuck_broker import replies
from unstuck_broker.events import Measured, StackTaken
from words import evalues, tell

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYWHERE = [
    "kernel_info_request",
    "comm_info_request",
    "connect_request",
    "interrupt_request",
]


def dead(pump: Pump) -> None:
    pump.die()


def busy(pump: Pump) -> None:
    pump.execute("m0")


def killed(pump: Pump) -> None:
    pump.execute("m0")
    pump.control("restart_request", "r0")


def untouched(pump: Pump) -> None:
    assert pump.process == "ready"


@pytest.mark.parametrize("channel", [SocketID.shell, SocketID.control])
@pytest.mark.parametrize("kind", EVERYWHERE)
@pytest.mark.parametrize("happens", [untouched, busy, dead, killed])
def test_it_is_answered_in_the_same_turn_in_every_state_of_the_worker(
    pump: Pump, happens: Callable[[Pump], None], kind: str, channel: SocketID
) -> None:
    happens(pump)
    actions = tell(pump.send(make_request(kind, "m1", channel=channel)))
    answers = ["m1 busy", f"m1 {replies.reply_type(kind)} ok", "m1 idle"]
    assert [line for line in actions if line.startswith("m1")] == answers


@pytest.mark.parametrize(
    "kind",
    [
        MsgType.shutdown_request,
        MsgType.debug_request,
        BrokerMsgType.restart_request,
        BrokerMsgType.stack_request,
        BrokerMsgType.create_subshell_request,
        BrokerMsgType.delete_subshell_request,
        BrokerMsgType.list_subshell_request,
    ],
)
def test_what_belongs_on_control_is_refused_on_shell(pump: Pump, kind: str) -> None:
    actions = pump.send(make_request(str(kind), "m1"))
    assert tell(actions)[1:] == [
        "m1 busy",
        f"m1 {replies.reply_type(str(kind))} error ValueError",
        "m1 idle",
    ]
    assert "send it on control" in evalues(actions)[0]


@pytest.mark.parametrize(
    "content", [{"target_name": 3}, {"restart": "yes"}, {"subshell_id": None}, {"msg_id": []}]
)
def test_a_field_of_the_wrong_type_gets_an_error_reply(
    pump: Pump, content: dict[str, object]
) -> None:
    actions = pump.send(
        make_request("kernel_info_request", "m1", channel=SocketID.control, content=content)
    )
    assert tell(actions)[1:] == ["m1 busy", "m1 kernel_info_reply error ValidationError", "m1 idle"]


def test_kernel_info_shows_the_banner_of_the_worker_once_it_is_there() -> None:
    pump = Pump()
    pump.control("kernel_info_request", "m1")
    pump.ready()
    pump.control("kernel_info_request", "m2")
    banners = [pump.ledger.replies[msg_id][0]["banner"] for msg_id in ("m1", "m2")]
    assert "unstuck" in banners[0]
    assert banners[1] == "hello"


def test_connect_names_the_ports(pump: Pump) -> None:
    pump.control("connect_request", "m1")
    assert pump.ledger.replies["m1"] == [{"status": "ok", **FACTS.ports}]


def test_there_is_no_debugger_and_the_reply_says_so(pump: Pump) -> None:
    actions = pump.control("debug_request", "m1", type="request", command="debugInfo")
    assert tell(actions) == ["m1 busy", "m1 debug_reply error NotImplementedError", "m1 idle"]


# --- what has to be measured ----------------------------------------------------------------------


def test_a_stack_is_taken_from_outside_and_then_answered(pump: Pump) -> None:
    assert tell(pump.control("stack_request", "m1")) == ["m1 busy", "take stack 1"]
    assert tell(pump.settle()) == ["m1 stack_reply ok", "m1 idle"]
    assert pump.ledger.replies["m1"] == [{"status": "ok", "stack": "File x, line 3"}]


def test_one_stack_may_answer_several_requests(pump: Pump) -> None:
    pump.control("stack_request", "m1")
    pump.control("stack_request", "m2")
    assert tell(pump.feed(StackTaken("s", (1, 2)))) == [
        "m1 stack_reply ok",
        "m1 idle",
        "m2 stack_reply ok",
        "m2 idle",
    ]
    assert pump.feed(StackTaken("s", (1, 2))) == []


def test_usage_is_measured_and_then_answered(pump: Pump) -> None:
    assert tell(pump.control("usage_request", "m1")) == ["m1 busy", "measure 1"]
    assert tell(pump.feed(Measured(1, b'{"status": "ok"}'))) == ["m1 usage_reply ok", "m1 idle"]


def test_a_stack_that_is_taken_while_the_worker_dies_is_answered(pump: Pump) -> None:
    pump.control("stack_request", "m1")
    assert "everybody: restarting" not in tell(pump.die())
    assert tell(pump.settle()) == [
        "m1 stack_reply ok",
        "m1 idle",
        "everybody: restarting",
        "everybody: starting",
    ]


def test_what_is_being_measured_at_a_shutdown_is_answered(pump: Pump) -> None:
    pump.control("stack_request", "m1")
    actions = tell(pump.control("shutdown_request", "m2"))
    assert actions[-3:] == ["m1 stack_reply aborted", "m1 idle", "exit"]
    assert pump.settle() == []


# --- subshells ------------------------------------------------------------------------------------


def create(pump: Pump, msg_id: str = "c1") -> str:
    pump.control("create_subshell_request", msg_id)
    return str(pump.ledger.replies[msg_id][0]["subshell_id"])


def test_a_subshell_has_a_queue_of_its_own(pump: Pump) -> None:
    subshell = create(pump)
    pump.execute("m1")
    assert tell(pump.execute("m2", subshell=subshell)) == ["m2 busy", "thread lane: run m2"]
    assert pump.execute("m3", subshell=subshell) == []
    assert tell(pump.finish("m2"))[2:] == ["m3 busy", "thread lane: run m3"]


def test_an_error_in_a_subshell_aborts_only_its_own_queue(pump: Pump) -> None:
    subshell = create(pump)
    pump.execute("m1")
    pump.execute("m2", subshell=subshell)
    pump.execute("m3")
    pump.execute("m4", subshell=subshell)
    aborted = ["m4 busy", "m4 execute_reply aborted", "m4 idle"]
    assert tell(pump.fail("m2"))[2:] == [*aborted, "still busy"]
    assert tell(pump.finish("m1"))[2:] == ["m3 busy", "main lane: run m3"]


def test_subshells_are_listed_and_their_ids_never_come_back(pump: Pump) -> None:
    first, second = create(pump, "c1"), create(pump, "c2")
    pump.control("delete_subshell_request", "d1", subshell_id=first)
    third = create(pump, "c3")
    pump.control("list_subshell_request", "l1")
    assert pump.ledger.replies["l1"] == [{"status": "ok", "subshell_id": [second, third]}]
    assert len({first, second, third}) == 3


def test_deleting_a_subshell_aborts_what_waits_and_lets_end_what_runs(pump: Pump) -> None:
    subshell = create(pump)
    pump.execute("m1", subshell=subshell)
    pump.execute("m2", subshell=subshell)
    assert tell(pump.control("delete_subshell_request", "d1", subshell_id=subshell)) == [
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        f"thread lane: CloseSubshell {subshell}",
        "d1 busy",
        "d1 delete_subshell_reply ok",
        "d1 idle",
        "still busy",
    ]
    assert tell(pump.fail("m1")) == ["m1 execute_reply error ValueError", "m1 idle"]
    assert tell(pump.execute("m3", subshell=subshell))[-2:] == [
        "m3 execute_reply error UnknownSubshellError",
        "m3 idle",
    ]


def test_deleting_an_unknown_subshell_gets_an_error_reply(pump: Pump) -> None:
    assert tell(pump.control("delete_subshell_request", "d1", subshell_id="gone")) == [
        "d1 busy",
        "d1 delete_subshell_reply error UnknownSubshellError",
        "d1 idle",
    ]


def test_a_subshell_outlives_its_worker(pump: Pump) -> None:
    subshell = create(pump)
    pump.die()
    assert pump.execute("m1", subshell=subshell) == []
    assert tell(pump.renew()) == ["everybody: idle", "m1 busy", "thread lane: run m1"]
    assert pump.jobs[pump.job_of("m1")].subshell == subshell


def test_a_subshell_that_is_made_while_there_is_no_worker_is_not_sent_to_one() -> None:
    pump = Pump()
    assert tell(pump.control("create_subshell_request", "c1")) == [
        "c1 busy",
        "c1 create_subshell_reply ok",
        "c1 idle",
    ]
