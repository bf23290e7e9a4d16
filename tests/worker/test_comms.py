"""Comms: what reaches the frontend, and what it sends to synchronous handlers."""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING, Any, cast

import comm
import pytest

from plainshell import Record, plain_shell
from unstuck_worker import comms
from worker.frontend import Wire, message

if TYPE_CHECKING:
    from pathlib import Path

    from comm.base_comm import BaseComm

    from unstuck_worker.comms import CommManager


# --- towards the frontend -------------------------------------------------------------------------


def test_opening_sending_and_closing_publish_the_three_messages(
    manager: CommManager, record: Record
) -> None:
    opened = comm.create_comm(
        target_name="plot", data={"a": 1}, metadata={"m": 2}, target_module="mod", comm_id="id"
    )
    assert manager.comms == {"id": opened}
    opened.send({"b": 2}, {"n": 3})
    opened.close({"c": 3})
    assert manager.comms == {}
    assert record.types == ["comm_open", "comm_msg", "comm_close"]
    opening, sending, closing = record.messages
    assert opening.content == {
        "comm_id": "id",
        "data": {"a": 1},
        "target_name": "plot",
        "target_module": "mod",
    }
    assert (opening.metadata, sending.metadata) == ({"m": 2}, {"n": 3})
    assert sending.content == {"comm_id": "id", "data": {"b": 2}}
    assert closing.content == {"comm_id": "id", "data": {"c": 3}}
    assert {each.topic for each in record.messages} == {b"comm-id"}


def test_a_comm_is_closed_once(manager: CommManager, record: Record) -> None:
    opened = comm.create_comm(target_name="t")
    opened.close()
    opened.close()
    del opened
    gc.collect()
    assert record.types == ["comm_open", "comm_close"]


def test_buffers_are_handed_on_as_they_are(manager: CommManager, record: Record) -> None:
    buffers = [bytearray(1 << 20), memoryview(b"abc")]
    opened = cast("Any", comm.create_comm(target_name="t"))
    opened.send({}, buffers=buffers)
    assert all(
        sent is given for sent, given in zip(record.messages[1].buffers, buffers, strict=True)
    )


@pytest.mark.parametrize("data", ['{"msgtype": "PATCH-DOC"}', "", [], 0])
def test_data_that_is_no_mapping_is_sent_as_it_is(
    manager: CommManager, record: Record, data: object
) -> None:
    # bokeh sends the parts of its own messages as text.
    cast("Any", comm.create_comm(target_name="t")).send(data)
    assert record.messages[1].content["data"] == data


def test_what_ipykernel_s_comm_takes_is_taken(manager: CommManager, record: Record) -> None:
    opened = comms.Comm("t", {"a": 1}, kernel=None, show_warning=False)
    assert record.messages[0].content["data"] == {"a": 1}
    assert opened.comm_id in manager.comms


def test_a_comm_with_the_id_of_an_older_one_is_not_closed_by_its_end(
    manager: CommManager, record: Record
) -> None:
    first = comm.create_comm(target_name="t", comm_id="id")
    second = comm.create_comm(target_name="t", comm_id="id")
    first.close()
    del first
    gc.collect()
    assert "comm_close" not in record.types
    assert manager.comms == {"id": second}


def test_comms_of_many_threads_are_all_there(manager: CommManager, record: Record) -> None:
    def open_some() -> None:
        for _ in range(50):
            comm.create_comm(target_name="t").send({})

    threads = [threading.Thread(target=open_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(manager.comms) == 200
    assert record.types.count("comm_msg") == 200


# --- from the frontend ----------------------------------------------------------------------------


def test_an_opened_comm_reaches_its_target_and_can_answer(
    manager: CommManager, record: Record
) -> None:
    seen: list[Any] = []

    def target(opened: BaseComm, opening: Wire) -> None:
        seen.append(opening)
        opened.on_msg(lambda request: opened.send({"echo": request["content"]["data"]}))

    manager.register_target("echo", target)
    opening = message("id", {"x": 1}, target_name="echo")
    manager.comm_open(opening)
    manager.comm_msg(message("id", {"y": 2}))
    assert seen == [opening]
    assert record.types == ["comm_msg"]
    assert record.messages[0].content["data"] == {"echo": {"y": 2}}


def test_an_unknown_target_is_told_and_the_comm_closed(
    manager: CommManager, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    manager.comm_open(message("id", target_name="nobody"))
    assert record.types == ["comm_close"]
    assert record.messages[0].content["comm_id"] == "id"
    assert manager.comms == {}
    assert "No such comm target registered: nobody" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("comm_open", {}, "comm_id is None"),
        ("comm_open", {"comm_id": "a", "target_name": 3}, "target_name is 3"),
        ("comm_msg", {"comm_id": ["a"]}, "comm_id is ['a']"),
        ("comm_close", {"comm_id": None}, "comm_id is None"),
    ],
)
def test_a_message_without_its_names_is_told_and_dropped(
    manager: CommManager,
    record: Record,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    content: Wire,
    said: str,
) -> None:
    getattr(manager, kind)({**message("a"), "content": content})
    assert said in capsys.readouterr().err
    assert record.messages == []
    assert manager.comms == {}


def test_a_target_that_raises_is_shown_and_the_comm_closed(
    manager: CommManager, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    def target(_opened: BaseComm, _opening: Wire) -> None:
        raise ValueError("not today")

    manager.register_target("bad", target)
    manager.comm_open(message("id", target_name="bad"))
    assert record.types == ["comm_close"]
    assert manager.comms == {}
    assert "ValueError: not today" in capsys.readouterr().err


def test_messages_for_an_unknown_comm_are_logged_and_dropped(
    manager: CommManager, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "unstuck.comms"):
        manager.comm_msg(message("lost"))
        manager.comm_close(message("lost"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
    assert "lost" in caplog.text


def test_the_frontend_s_close_reaches_the_handler_and_is_not_answered(
    manager: CommManager, record: Record
) -> None:
    closed: list[Any] = []
    opened = comm.create_comm(target_name="t", comm_id="id")
    opened.on_close(closed.append)
    closing = message("id", {"why": "gone"})
    manager.comm_close(closing)
    opened.close()
    assert closed == [closing]
    assert record.types == ["comm_open"]
    assert manager.comms == {}


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_handler_that_raises_is_shown_with_the_user_s_frames_only(
    manager: CommManager, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def handler(_request: Wire) -> None:
        raise error

    opened = comm.create_comm(target_name="t", comm_id="id")
    opened.on_msg(handler)
    manager.comm_msg(message("id"))
    shown = capsys.readouterr().err
    assert "Exception in comm_msg for id" in shown
    assert f"{type(error).__name__}" in shown
    assert "in handler" in shown
    assert "unstuck_worker" not in shown


def test_a_handler_that_is_interrupted_is_shown_without_what_interrupts(
    manager: CommManager, capsys: pytest.CaptureFixture[str]
) -> None:
    ours: dict[str, Any] = {"__name__": "unstuck_worker.interrupt"}
    exec("def on_signal():\n    raise KeyboardInterrupt", ours)

    def handler(_request: Wire) -> None:
        ours["on_signal"]()

    opened = comm.create_comm(target_name="t", comm_id="id")
    opened.on_msg(handler)
    manager.comm_msg(message("id"))
    shown = capsys.readouterr().err
    assert "KeyboardInterrupt" in shown
    assert "in handler" in shown
    assert "in on_signal" not in shown


def test_the_arguments_of_other_kernels_managers_are_taken(
    manager: CommManager, record: Record
) -> None:
    seen: list[Any] = []
    opened = comm.create_comm(target_name="t", comm_id="id")
    opened.on_msg(seen.append)
    request = message("id")
    manager.comm_msg(None, [b"ident"], request)
    assert seen == [request]


def test_a_handler_runs_between_the_shell_s_events(manager: CommManager, tmp_path: Path) -> None:
    order: list[str] = []
    with plain_shell(tmp_path) as shell:
        shell.events.register("pre_execute", lambda: order.append("pre"))
        shell.events.register("post_execute", lambda: order.append("post"))
        opened = comm.create_comm(target_name="t", comm_id="id")
        opened.on_msg(lambda _request: order.append("handler"))
        manager.comm_msg(message("id"))
    assert order == ["pre", "handler", "post"]
