"""What the core does about each message: events in, all actions out."""

from __future__ import annotations

import pytest

from pump import BOOM, FACTS, Pump, make_request
from unstuck.config import Config
from unstuck.protocol import (
    Finished,
    NewPipes,
    Outcome,
    Pong,
    Run,
    SetSettings,
    Start,
)
from unstuck.typing import MsgType, RunMode, SocketID
from unstuck_broker import replies
from unstuck_broker.actions import (
    Lane,
    PublishToClients,
    ReplyToClient,
    SendToWorker,
)
from unstuck_broker.core import Core
from unstuck_broker.events import Received, Subscribed
from unstuck_broker.lifecycle import S
from words import evalues, tell

# --- an execute_request, from its arrival to its idle ---------------------------------------------


def test_a_cell_gets_busy_its_run_its_reply_and_idle(pump: Pump) -> None:
    request = make_request(msg_id="m1", content={"code": "1+1"})
    header = request.header_json
    assert pump.feed(Received(request)) == [
        PublishToClients("status", replies.BUSY, header),
        PublishToClients("execute_input", b'{"code":"1+1","execution_count":1}', header),
        SendToWorker(
            Lane.main,
            Run(
                job=1,
                kind=MsgType.execute_request,
                mode=RunMode.queue,
                channel=SocketID.shell,
                header=header,
                parent_header=b"{}",
                metadata=b"{}",
                content=b'{"code": "1+1"}',
                idents=[b"client"],
                received_s=100.0,
            ),
        ),
    ]
    finished = Finished(1, Outcome.ok, b'{"status":"ok"}', b'{"x":1}', buffers=[b"b"])
    pump.jobs.clear()
    assert pump.say(finished) == [
        ReplyToClient(request, "execute_reply", b'{"status":"ok"}', b'{"x":1}', [b"b"]),
        PublishToClients("status", replies.IDLE, header),
    ]


def test_cells_of_the_queue_run_one_after_the_other(pump: Pump) -> None:
    assert tell(pump.execute("m1")) == ["m1 busy", "main lane: run m1"]
    assert pump.execute("m2") == []
    assert pump.execute("m3") == []
    assert tell(pump.finish("m1")) == [
        "m1 execute_reply ok",
        "m1 idle",
        "m2 busy",
        "main lane: run m2",
    ]
    assert tell(pump.finish("m2"))[2:] == ["m3 busy", "main lane: run m3"]


def test_task_and_thread_cells_run_beside_the_queue(pump: Pump) -> None:
    pump.execute("m1")
    assert tell(pump.execute("m2", "##task")) == ["m2 busy", "main lane: run m2"]
    assert tell(pump.execute("m3", "##thread")) == ["m3 busy", "thread lane: run m3"]
    assert tell(pump.finish("m3")) == ["m3 execute_reply ok", "m3 idle", "still busy"]


def test_the_kernel_is_busy_again_behind_what_is_answered_beside_a_cell(pump: Pump) -> None:
    pump.execute("m1")
    served = tell(pump.control("kernel_info_request", "m2"))
    assert served == ["m2 busy", "m2 kernel_info_reply ok", "m2 idle", "still busy"]
    pump.send(make_request("complete_request", "m3"))
    assert tell(pump.finish("m3")) == ["m3 complete_reply ok", "m3 idle", "still busy"]
    assert tell(pump.print("m1", "a line")) == []
    assert tell(pump.finish("m1"))[-1] == "m1 idle"
    assert tell(pump.control("kernel_info_request", "m4"))[-1] == "m4 idle"


def test_the_worker_is_busy_until_its_last_job_has_ended(pump: Pump) -> None:
    states = [pump.core.life.state]
    pump.execute("m1")
    states.append(pump.core.life.state)
    pump.execute("m2", "##task")
    states.append(pump.core.life.state)
    pump.finish("m1")
    states.append(pump.core.life.state)
    pump.finish("m2")
    states.append(pump.core.life.state)
    assert states == [S.READY, S.BUSY, S.BUSY, S.BUSY, S.READY]


def test_requests_that_came_before_the_worker_was_ready_start_in_their_order() -> None:
    pump = Pump()
    assert pump.execute("m1") == []
    assert pump.execute("m2", "##task") == []
    assert pump.send(make_request("comm_msg", "m3")) == []
    assert tell(pump.ready()) == [
        "m1 busy",
        "main lane: run m1",
        "m2 busy",
        "main lane: run m2",
        "m3 busy",
        "main lane: run m3",
    ]


def test_an_error_aborts_the_cells_behind_it_and_nothing_else(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.execute("m3", "##task")
    pump.execute("m4")
    assert tell(pump.fail("m1")) == [
        "m1 execute_reply error ValueError",
        "m1 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "m4 busy",
        "m4 execute_reply aborted",
        "m4 idle",
        "still busy",
    ]
    assert tell(pump.execute("m5")) == ["m5 busy", "main lane: run m5"]


def test_an_error_that_does_not_stop_lets_the_queue_go_on(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    assert tell(pump.fail("m1", stop_on_error=False))[2:] == ["m2 busy", "main lane: run m2"]


@pytest.mark.parametrize("directive", ["##task", "##thread"])
def test_an_error_of_a_task_or_thread_cell_aborts_nothing(pump: Pump, directive: str) -> None:
    pump.execute("m1", directive)
    pump.execute("m2")
    pump.execute("m3")
    assert tell(pump.fail("m1")) == ["m1 execute_reply error ValueError", "m1 idle", "still busy"]
    assert tell(pump.finish("m2"))[2:] == ["m3 busy", "main lane: run m3"]


def test_a_job_that_ends_twice_is_answered_once(pump: Pump) -> None:
    pump.execute("m1")
    pump.finish("m1")
    assert pump.say(Finished(1, Outcome.error, BOOM, stop_on_error=True)) == []
    assert pump.say(Finished(99, Outcome.ok, replies.OK)) == []


def test_a_comm_message_has_no_reply(pump: Pump) -> None:
    pump.send(make_request("comm_msg", "m1", content={"comm_id": "c"}))
    assert tell(pump.finish("m1")) == ["m1 idle"]


# --- requests that cannot be run ------------------------------------------------------------------


def test_an_unknown_message_type_gets_an_error_reply(pump: Pump) -> None:
    assert tell(pump.send(make_request("dance_request"))) == [
        "log refused msg_type=dance_request why=\"unknown message type 'dance_request'\"",
        "m1 busy",
        "m1 dance_reply error UnknownMessageType",
        "m1 idle",
    ]


@pytest.mark.parametrize(
    ("content", "metadata", "run_mode", "says"),
    [
        (b"{}", None, None, "malformed execute_request"),
        (b'{"code": 1}', None, None, "malformed execute_request"),
        (b'{"code": "1", "silent": "no"}', None, None, "malformed execute_request"),
        (b'{"code": "##thread colour=red"}', None, None, "unknown option colour"),
        (None, None, "sideways", "unknown run mode 'sideways'"),
        (None, None, {"a": 1}, "unknown run mode"),
        (None, {"timeout": "soon"}, None, "timeout 'soon'"),
        (None, {"timeout": 10**400}, None, "timeout 1000"),
        (None, {"timeout": True}, None, "timeout True"),
        (None, {"timeout": -1}, None, "timeout -1"),
        (None, {"timeout": "inf"}, None, "timeout 'inf'"),
        (None, {"timeout": [1]}, None, "timeout [1]"),
        (None, {"tags": ["stop-on-error=perhaps"]}, None, "tag stop-on-error=perhaps"),
    ],
)
def test_a_cell_that_says_nonsense_about_itself_gets_an_error_reply(
    pump: Pump,
    content: bytes | None,
    metadata: dict[str, object] | None,
    run_mode: object,
    says: str,
) -> None:
    request = make_request(content=content, metadata=metadata, run_mode=run_mode)
    actions = pump.send(request)
    assert tell(actions)[1:] == [
        "m1 busy",
        "m1 error ValueError",
        "m1 execute_reply error ValueError",
        "m1 idle",
    ]
    assert all(says in evalue for evalue in evalues(actions))


@pytest.mark.parametrize(
    ("run_mode", "says"),
    [
        ("queue", "complete_request runs as thread: only execute_request takes a run mode"),
        ("sideways", "unknown run mode 'sideways' in the message header"),
    ],
)
def test_a_request_that_is_no_cell_and_asks_for_a_mode_gets_an_error_reply(
    pump: Pump, run_mode: str, says: str
) -> None:
    actions = pump.send(make_request("complete_request", run_mode=run_mode))
    assert tell(actions)[1:] == ["m1 busy", "m1 complete_reply error ValueError", "m1 idle"]
    assert says in evalues(actions)[0]


def test_a_comm_message_that_asks_for_a_mode_is_logged_and_dropped(pump: Pump) -> None:
    sent = pump.send(make_request("comm_msg", content={"comm_id": "c"}, run_mode="thread"))
    assert tell(sent)[0].startswith("log refused msg_type=comm_msg why='comm_msg runs as task")
    assert tell(sent)[1:] == ["m1 busy", "m1 idle"]


def test_a_cell_for_an_unknown_subshell_gets_an_error_reply(pump: Pump) -> None:
    assert tell(pump.execute("m1", subshell="gone"))[1:] == [
        "m1 busy",
        "m1 error UnknownSubshellError",
        "m1 execute_reply error UnknownSubshellError",
        "m1 idle",
    ]


# --- the start on iopub ---------------------------------------------------------------------------


def test_the_first_answers_wait_until_somebody_listens() -> None:
    pump = Pump(listening=False)
    assert pump.control("kernel_info_request", "m1") == []
    assert tell(pump.feed(Subscribed(b""))) == [
        "m1 busy",
        "m1 kernel_info_reply ok",
        "m1 idle",
        "everybody: iopub_welcome",
    ]
    assert tell(pump.control("kernel_info_request", "m2"))[0] == "m2 busy"


def test_the_first_answers_wait_no_longer_than_they_may() -> None:
    pump = Pump(Config(subscription_wait_s=0.5), listening=False)
    pump.ready()
    pump.control("kernel_info_request", "m1")
    assert tell(pump.execute("m2")) == ["main lane: run m2"]
    assert pump.pass_time(0.4) == []
    assert tell(pump.pass_time(0.2)) == [
        "m1 busy",
        "m1 kernel_info_reply ok",
        "m1 idle",
        "m2 busy",
    ]
    assert pump.core.deadline_s() is None


def test_a_subscriber_is_welcomed_with_its_topic(pump: Pump) -> None:
    assert pump.feed(Subscribed(b"a\xff")) == [
        PublishToClients("iopub_welcome", '{"subscription":"a\ufffd"}'.encode(), topic=b"a\xff")
    ]


# --- what the worker tells ------------------------------------------------------------------------


def test_settings_that_the_broker_enforces_are_taken(pump: Pump) -> None:
    pump.say(SetSettings({"interrupt_grace_s": 7.0}))
    assert pump.core.config.interrupt_grace_s == 7.0
    assert pump.core.start_message() == Start(
        session=FACTS.session,
        connection_file=FACTS.connection_file,
        settings=pump.core.start_message().settings,
    )


def test_all_workers_get_the_same_settings_and_only_the_first_restores() -> None:
    core = Core(Config(restore_file="x.ckpt"), FACTS)
    first, second = core.start_message(), core.start_message()
    assert (first.is_first, second.is_first) == (True, False)
    assert first.settings == second.settings
    assert first.settings["restore_file"] == "x.ckpt"


@pytest.mark.parametrize("wrong", [{"unheard_of": 1}, {"interrupt_grace_s": "long"}])
def test_settings_that_do_not_exist_are_refused_with_a_line(
    pump: Pump, wrong: dict[str, object]
) -> None:
    before = pump.core.config
    assert tell(pump.say(SetSettings(wrong)))[0].startswith("log refused settings why=")
    assert pump.core.config == before


def test_what_only_the_supervisor_reads_changes_nothing(pump: Pump) -> None:
    assert pump.say(Pong(1, 2)) == []
    assert pump.say(NewPipes(1, b"{}")) == []
