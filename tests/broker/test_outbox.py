"""What leaves the core in one turn, and what waits for the first subscriber."""

from __future__ import annotations

import pytest

from pump import make_request
from unstuck.config import Config
from unstuck.protocol import StreamName
from unstuck_broker import replies
from unstuck_broker.actions import Exit, PublishToClients
from unstuck_broker.outbox import Outbox
from words import tell

OUT = StreamName.stdout
REQUEST = make_request(msg_id="m1")
HEADER = REQUEST.header_json


@pytest.fixture
def out() -> Outbox:
    """Give an outbox that somebody listens to."""
    made = Outbox(Config())
    made.somebody_listens()
    return made


def test_a_turn_gives_each_action_once_and_in_order(out: Outbox) -> None:
    out.status(replies.BUSY, HEADER)
    out.log("line")
    out.order(Exit())
    assert tell(out.take()) == ["m1 busy", "log line", "exit"]
    assert out.take() == []


def test_an_answer_is_busy_reply_idle(out: Outbox) -> None:
    out.answer(REQUEST, replies.OK)
    assert tell(out.take()) == ["m1 busy", "m1 execute_reply ok", "m1 idle"]


def test_an_answer_to_a_comm_message_has_no_reply(out: Outbox) -> None:
    out.answer(make_request("comm_close", "m1"), replies.OK)
    assert tell(out.take()) == ["m1 busy", "m1 idle"]


def test_text_goes_before_any_other_message_of_its_cell(out: Outbox) -> None:
    out.stream(HEADER, OUT, "a", 1.0)
    out.publish(PublishToClients("display_data", b"{}", HEADER))
    out.stream(HEADER, OUT, "b", 1.0)
    out.note(HEADER, StreamName.stderr, "c")
    out.stream(HEADER, OUT, "d", 1.0)
    out.reply(REQUEST, replies.OK)
    assert tell(out.take()) == [
        "m1 stdout 'a'",
        "m1 display_data",
        "m1 stdout 'b'",
        "m1 stderr 'c'",
        "m1 stdout 'd'",
        "m1 execute_reply ok",
    ]


def test_text_of_one_cell_does_not_wait_for_another(out: Outbox) -> None:
    other = make_request(msg_id="m2").header_json
    out.stream(HEADER, OUT, "a", 1.0)
    out.stream(other, OUT, "b", 1.0)
    out.flush(other)
    assert tell(out.take()) == ["m2 stdout 'b'"]
    out.flush_all()
    assert tell(out.take()) == ["m1 stdout 'a'"]


def test_stream_messages_have_the_topic_of_ipykernel(out: Outbox) -> None:
    out.note(b"{}", StreamName.stderr, "x")
    content = b'{"name":"stderr","text":"x"}'
    assert out.take() == [PublishToClients("stream", content, b"{}", topic=b"stream.stderr")]


def test_before_somebody_listens_orders_leave_and_messages_wait() -> None:
    out = Outbox(Config(subscription_wait_s=0.5))
    out.answer(REQUEST, replies.OK)
    out.order(Exit())
    assert tell(out.take()) == ["exit"]
    out.somebody_listens()
    out.somebody_listens()
    assert tell(out.take()) == ["m1 busy", "m1 execute_reply ok", "m1 idle"]


def test_the_wait_for_a_subscriber_begins_with_the_first_request_and_ends() -> None:
    out = Outbox(Config(subscription_wait_s=0.5))
    out.tick(1000.0)
    assert out.deadlines_s() == []
    out.begin_hold(1000.0)
    out.begin_hold(1000.4)
    out.status(replies.BUSY, HEADER)
    assert out.deadlines_s() == [1000.5]
    out.tick(1000.4)
    assert out.take() == []
    out.tick(1000.5)
    assert tell(out.take()) == ["m1 busy"]
    assert out.deadlines_s() == []


def test_an_error_of_ours_is_shown_and_replied_with_the_same_words(out: Outbox) -> None:
    out.error_output(REQUEST, "Boom", "because", [])
    assert out.take() == [
        PublishToClients(
            "error", b'{"ename":"Boom","evalue":"because","traceback":["because"]}', HEADER
        )
    ]
