"""``input()`` of cells: which answer is for which question."""

from __future__ import annotations

import json

import pytest

from pump import Pump, make_request
from unstuck.protocol import (
    InputReply,
    Run,
    SetConcurrencyMode,
)
from unstuck.typing import KernelConcurrencyMode, MsgType, RunMode, SocketID
from unstuck_broker.actions import (
    AskClient,
    Lane,
    SendToWorker,
)
from unstuck_broker.events import Asked, Received
from words import tell

BLOCKING = SetConcurrencyMode(KernelConcurrencyMode.blocking)


def answer(parent: str | None = None, client: str = "client", value: object = "x") -> Received:
    """Make an input_reply."""
    return Received(
        make_request(
            "input_reply",
            "a1",
            channel=SocketID.stdin,
            client=client,
            content={"value": value},
            parent=None if parent is None else {"msg_id": parent},
        )
    )


def test_a_question_goes_to_the_client_of_its_cell_and_the_answer_back(pump: Pump) -> None:
    pump.execute("m1")
    pump.print("m1", "first")
    actions = pump.ask_input("m1", 5, "name? ")
    assert tell(actions) == ["m1 stdout 'first'", "m1 input_request 5 'name? '"]
    asked = actions[-1]
    assert isinstance(asked, AskClient)
    assert json.loads(asked.content) == {"prompt": "name? ", "password": False}
    assert pump.feed(answer(value="Ada")) == [SendToWorker(Lane.thread, InputReply(5, "Ada"))]
    assert tell(pump.feed(answer())) == [
        "log dropped channel=stdin why='no cell of this client waits for input'"
    ]


def test_an_answer_that_names_its_question_goes_to_that_one(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##thread")
    pump.ask_input("m1", 1)
    pump.ask_input("m2", 2)
    pump.feed(Asked(1, "q1"))
    pump.feed(Asked(2, "q2"))
    assert tell(pump.feed(answer("q1"))) == ["thread lane: input 1 'x'"]
    assert tell(pump.feed(answer("q2"))) == ["thread lane: input 2 'x'"]


def test_an_answer_that_names_its_cell_goes_to_that_one(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##thread")
    pump.ask_input("m1", 1)
    pump.ask_input("m2", 2)
    assert tell(pump.feed(answer("m1"))) == ["thread lane: input 1 'x'"]


def test_an_answer_that_names_nothing_goes_to_the_newest_question_of_its_client(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##thread")
    pump.execute("m3", "##thread", client="other")
    for number, msg_id in enumerate(("m1", "m2", "m3"), 1):
        pump.ask_input(msg_id, number)
    assert tell(pump.feed(answer())) == ["thread lane: input 2 'x'"]
    assert tell(pump.feed(answer())) == ["thread lane: input 1 'x'"]


def test_an_answer_to_a_question_that_is_over_goes_to_no_other(pump: Pump) -> None:
    pump.execute("m1")
    pump.ask_input("m1", 1)
    pump.feed(Asked(1, "q1"))
    pump.finish("m1")
    pump.execute("m2")
    pump.ask_input("m2", 2)
    pump.feed(Asked(2, "q2"))
    assert tell(pump.feed(answer("q1")))[0].startswith("log dropped channel=stdin")
    assert tell(pump.feed(answer("q2"))) == ["thread lane: input 2 'x'"]


def test_a_question_of_a_job_that_is_over_is_withdrawn(pump: Pump) -> None:
    pump.execute("m1")
    job = pump.job_of("m1")
    pump.finish("m1")
    pump.jobs[job] = Run(
        job, MsgType.execute_request, RunMode.queue, SocketID.shell, b'{"msg_id": "m1"}',
        b"{}", b"{}", b"{}", [], 0.0,
    )  # fmt: skip
    assert tell(pump.ask_input("m1", 1)) == ["thread lane: input 1 None"]


@pytest.mark.parametrize("value", [7, None, ["x"]])
def test_a_malformed_answer_is_dropped_and_the_question_stays(pump: Pump, value: object) -> None:
    pump.execute("m1")
    pump.ask_input("m1", 1)
    assert "malformed input_reply" in tell(pump.feed(answer(value=value)))[0]
    assert tell(pump.feed(answer())) == ["thread lane: input 1 'x'"]
