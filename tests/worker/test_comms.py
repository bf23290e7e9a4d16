"""Comms: what reaches the frontend, and what handlers of its messages may do."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

import comm
import pytest

from plainshell import Record, plain_shell
from unstuck.jobcontext import JobContext, current_job
from unstuck_worker import comms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from comm.base_comm import BaseComm

    from unstuck_worker.comms import CommManager

Wire = dict[str, Any]


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def manager(record: Record, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommManager]:
    """Install our comms for one test."""
    monkeypatch.setattr(comm, "create_comm", comm.create_comm)
    monkeypatch.setattr(comm, "get_comm_manager", comm.get_comm_manager)
    monkeypatch.setattr(comms.Comm, "manager", None)
    manager = comms.install(record.publish)
    yield manager
    for opened in list(manager.comms.values()):
        opened.close()


def listen(comm_id: str, handler: Callable[[Wire], object]) -> comms.Comm:
    """Open a comm whose messages ``handler`` gets."""
    opened = comms.Comm("t", comm_id=comm_id)
    cast("Any", opened).on_msg(handler)
    return opened


def message(comm_id: str, data: dict[str, Any] | None = None, **content: object) -> Wire:
    return {
        "header": {"msg_id": "m"},
        "parent_header": {},
        "metadata": {},
        "content": {"comm_id": comm_id, "data": data or {}, **content},
        "buffers": [b"raw"],
    }


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


# --- asynchronous handlers ------------------------------------------------------------------------


def test_asynchronous_handlers_of_one_comm_run_in_order_and_of_two_beside_each_other(
    manager: CommManager,
) -> None:
    order: list[str] = []

    async def main() -> None:
        let_first_go = asyncio.Event()

        async def slow(request: Wire) -> None:
            name = request["content"]["data"]["name"]
            order.append(f"start {name}")
            if name == "first":
                await let_first_go.wait()
            order.append(f"end {name}")

        async def other(_request: Wire) -> None:
            order.append("other")
            let_first_go.set()

        for comm_id, handler in (("a", slow), ("b", other)):
            listen(comm_id, handler)
        handled = [
            manager.comm_msg(message("a", {"name": "first"})),
            manager.comm_msg(message("a", {"name": "second"})),
            manager.comm_msg(message("b")),
        ]
        async with asyncio.timeout(30):
            for each in handled:
                await each

    asyncio.run(main())
    assert order == ["start first", "other", "end first", "start second", "end second"]


def test_a_synchronous_handler_has_ended_when_the_call_returns(manager: CommManager) -> None:
    seen: list[Any] = []

    async def main() -> None:
        opened = comm.create_comm(target_name="t", comm_id="id")
        opened.on_msg(lambda request: seen.append(request["content"]["data"]))
        handled = manager.comm_msg(message("id", {"n": 1}))
        assert seen == [{"n": 1}]
        await handled

    asyncio.run(main())


def test_an_asynchronous_handler_that_raises_is_shown_and_the_next_one_runs(
    manager: CommManager, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    async def main() -> None:
        async def handler(_request: Wire) -> None:
            calls.append(1)
            await asyncio.sleep(0)
            raise ValueError(f"call {len(calls)}")

        listen("id", handler)
        for each in [manager.comm_msg(message("id")), manager.comm_msg(message("id"))]:
            await each

    asyncio.run(main())
    assert len(calls) == 2
    assert "ValueError: call 2" in capsys.readouterr().err


def test_cancelling_the_wait_cancels_the_handler_and_not_the_next_one(
    manager: CommManager,
) -> None:
    ended: list[str] = []

    async def main() -> None:
        started = asyncio.Event()

        async def handler(request: Wire) -> None:
            name = request["content"]["data"]["name"]
            started.set()
            if name == "endless":
                await asyncio.sleep(3600)
            ended.append(name)

        listen("id", handler)

        async def serve(name: str) -> None:
            await manager.comm_msg(message("id", {"name": name}))

        endless = asyncio.create_task(serve("endless"))
        await started.wait()
        following = asyncio.create_task(serve("next"))
        await asyncio.sleep(0)
        endless.cancel()
        async with asyncio.timeout(30):
            await following
        assert endless.cancelled()

    asyncio.run(main())
    assert ended == ["next"]


def test_a_handler_without_an_event_loop_is_told_and_not_lost_silently(
    manager: CommManager, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handler(_request: Wire) -> None:
        raise AssertionError("it has no loop to run in")

    listen("id", handler)
    manager.comm_msg(message("id"))
    gc.collect()
    assert "no event loop" in capsys.readouterr().err


def test_a_handler_keeps_the_job_of_its_message(manager: CommManager) -> None:
    jobs: list[Any] = []

    async def main() -> None:
        async def handler(_request: Wire) -> None:
            await asyncio.sleep(0)
            jobs.append(current_job.get())

        listen("id", handler)
        contexts = [JobContext(number) for number in (1, 2)]

        async def serve(context: JobContext) -> None:
            current_job.set(context)
            await manager.comm_msg(message("id"))

        async with asyncio.timeout(30):
            await asyncio.gather(*map(serve, contexts))
        assert jobs == contexts

    asyncio.run(main())


# --- ipywidgets -----------------------------------------------------------------------------------


def test_widgets_work_in_cells_and_in_threads(tmp_path: Path) -> None:
    program = f"""
import sys, threading
from pathlib import Path
from plainshell import Record, plain_shell
from unstuck_worker.kernel import UnstuckKernel
record = Record()
with plain_shell(Path({str(tmp_path)!r})) as shell:
    shell.kernel = kernel = UnstuckKernel(shell, record.publish, record.send)
    shell.run_cell('''
import ipywidgets, threading
slider = ipywidgets.IntSlider(value=3)
seen = []
slider.observe(lambda change: seen.append((change.new, threading.current_thread().name)), "value")
made = []
thread = threading.Thread(target=lambda: made.append(ipywidgets.Button(description="b")))
thread.start(); thread.join(30)
''').raise_error()
    assert set(record.types) == {{"comm_open"}}, record.types
    assert "jupyter.widget" in kernel.comm_manager.targets
    def move(to):
        data = {{"method": "update", "state": {{"value": to}}, "buffer_paths": []}}
        content = {{"comm_id": shell.user_ns["slider"].comm.comm_id, "data": data}}
        kernel.comm_manager.comm_msg({{"content": content, "buffers": [], "metadata": {{}}}})
    move(5)
    thread = threading.Thread(target=move, args=(7,), name="other")
    thread.start(); thread.join(30)
    assert shell.user_ns["seen"] == [(5, "MainThread"), (7, "other")], shell.user_ns["seen"]
    shell.user_ns["made"][0].close()
    assert record.types[-1] == "comm_close"
"""
    import os

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
