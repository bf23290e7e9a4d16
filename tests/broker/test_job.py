"""What a request says about how it runs."""

from __future__ import annotations

from typing import Any

import pytest

from pump import make_request
from unstuck.config import Config
from unstuck.typing import KernelConcurrencyMode, MsgType, RunMode, SocketID
from unstuck_broker.actions import Lane
from unstuck_broker.gate import Arrival
from unstuck_broker.job import COMM, INTROSPECTION, Job, make_job

BLOCKING = KernelConcurrencyMode.blocking


def cell(
    code: str = "1",
    *,
    config: Config | None = None,
    mode: KernelConcurrencyMode = KernelConcurrencyMode.default,
    content: dict[str, Any] | None = None,
    **more: Any,  # noqa: ANN401 - as make_request
) -> Job:
    request = make_request(content={"code": code, **(content or {})}, **more)
    return make_job(Arrival(1, request, 5.0), MsgType.execute_request, config or Config(), mode)


def other(kind: MsgType, mode: KernelConcurrencyMode = KernelConcurrencyMode.default) -> Job:
    return make_job(Arrival(1, make_request(str(kind)), 5.0), kind, Config(), mode)


@pytest.mark.parametrize(
    ("code", "mode", "lane", "in_main_thread"),
    [
        ("1", RunMode.queue, Lane.main, True),
        ("##task", RunMode.task, Lane.main, False),
        ("##thread", RunMode.thread, Lane.thread, False),
        ("##blocking", RunMode.blocking, Lane.main, True),
    ],
)
def test_the_run_mode_chooses_the_lane(
    code: str,
    mode: RunMode,
    lane: Lane,
    in_main_thread: bool,
) -> None:
    job = cell(code)
    assert (job.mode, job.lane, job.in_main_thread) == (mode, lane, in_main_thread)
    assert job.queued == (mode is RunMode.queue)
    assert job.blocks_channel == job.closes_shell == (mode is RunMode.blocking)


def test_a_cell_of_a_subshell_runs_in_its_thread() -> None:
    job = cell(subshell="s")
    assert (job.subshell, job.lane, job.in_main_thread) == ("s", Lane.thread, False)


def test_a_task_or_thread_cell_has_no_subshell() -> None:
    assert cell("##task", subshell="s").subshell is None
    assert cell("##thread", subshell="s").subshell is None


def test_blocking_on_control_does_not_close_shell() -> None:
    job = cell(mode=BLOCKING, channel=SocketID.control)
    assert (job.blocks_channel, job.closes_shell) == (True, False)


@pytest.mark.parametrize("kind", sorted(INTROSPECTION))
def test_introspection_runs_in_a_thread_and_in_blocking_mode_closes_shell(kind: MsgType) -> None:
    assert (other(kind).lane, other(kind).closes_shell) == (Lane.thread, False)
    assert (other(kind, BLOCKING).lane, other(kind, BLOCKING).closes_shell) == (Lane.main, True)


@pytest.mark.parametrize("kind", sorted(COMM))
def test_comm_messages_go_to_the_main_thread_and_close_nothing(kind: MsgType) -> None:
    assert (other(kind).lane, other(kind).closes_shell) == (Lane.main, False)


@pytest.mark.parametrize(
    ("metadata", "timeout_s"),
    [
        (None, 7.0),
        ({"timeout": 2}, 2.0),
        ({"timeout": "2.5"}, 2.5),
        ({"timeout": 0}, None),
        ({"tags": ["timeout=3"]}, 3.0),
        ({"tags": ["timeout=0"]}, None),
        ({"timeout": 2, "tags": ["timeout=3"]}, 2.0),
        ({"tags": "timeout=3"}, 7.0),
        ({"tags": [None, 3, "timeout=4"]}, 4.0),
        ({"timeout": None}, 7.0),
    ],
)
def test_a_timeout_is_the_cell_s_own_else_the_kernel_s(
    metadata: dict[str, Any] | None, timeout_s: float | None
) -> None:
    assert cell(metadata=metadata, config=Config(cell_timeout_s=7.0)).timeout_s == timeout_s


def test_without_a_timeout_a_cell_may_take_as_long_as_it_likes() -> None:
    assert cell().timeout_s is None


@pytest.mark.parametrize(
    ("content", "tags", "stops"),
    [
        ({}, [], True),
        ({"stop_on_error": False}, [], False),
        ({"stop_on_error": True}, ["stop-on-error=false"], False),
        ({"stop_on_error": False}, ["stop-on-error=TRUE"], True),
        ({}, ["raises-exception"], False),
        ({}, ["raises-exception", "stop-on-error=true"], True),
        ({"silent": True}, [], False),
        ({"silent": True}, ["stop-on-error=true"], False),
    ],
)
def test_a_cell_says_whether_its_error_stops_the_queue(
    content: dict[str, Any], tags: list[str], stops: bool
) -> None:
    assert cell(content=content, metadata={"tags": tags}).stop_on_error is stops


def test_a_comment_is_a_directive_only_by_setting() -> None:
    assert cell("# task").mode is RunMode.queue
    assert cell("# task", config=Config(hash_directive=True)).mode is RunMode.task


def test_the_order_for_the_worker_holds_the_request_as_it_came() -> None:
    job = cell("##task", metadata={"a": 1}, parent={"msg_id": "p"})
    run = job.run()
    request = job.request
    assert (run.header, run.parent_header, run.metadata, run.content) == (
        request.header_json,
        request.parent_json,
        request.metadata_json,
        request.content_json,
    )
    assert (run.job, run.mode, run.received_s, run.idents) == (1, RunMode.task, 5.0, [b"client"])
