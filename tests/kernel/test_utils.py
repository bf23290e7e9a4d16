"""What code in a cell may ask, and the tools for threads."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kernel.callers import DEADLINE_S, both, run_with_caller, sleep, until, wait_until
from unstuck import jobcontext, utils
from unstuck.caller import Caller
from unstuck.jobcontext import JobContext, current_job
from unstuck.typing import RunMode, SocketID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def kernel() -> Iterator[SimpleNamespace]:
    shell = SimpleNamespace(execute_request_timeout=None)
    kernel = SimpleNamespace(shell=shell, execution_count=12)
    before = jobcontext.get_kernel()
    jobcontext.set_kernel(kernel)
    yield kernel
    jobcontext.set_kernel(before)


def make_job(metadata: object = None, mode: RunMode = RunMode.task) -> JobContext:
    return JobContext(
        7,
        mode=mode,
        channel=SocketID.shell,
        header=b'{"msg_id": "m1"}',
        metadata=json.dumps({} if metadata is None else metadata).encode(),
    )


@pytest.fixture
def job() -> Iterator[JobContext]:
    job = make_job({"tags": ["thread", "timeout=2.5"], "other": 1})
    token = current_job.set(job)
    yield job
    current_job.reset(token)


def test_outside_of_a_kernel_there_is_nothing_to_ask() -> None:
    assert utils.get_job() == {}
    assert utils.get_parent() is None
    assert utils.get_metadata() == {}
    assert utils.get_tags() == []
    assert utils.get_execute_request_timeout() is None
    assert utils.get_execution_count() == 0
    if jobcontext.get_kernel() is None:
        with pytest.raises(RuntimeError, match="no unstuck kernel runs in this process"):
            utils.get_kernel()


def test_a_cell_finds_its_job_and_the_kernel(job: JobContext, kernel: SimpleNamespace) -> None:
    assert utils.get_kernel() is kernel
    found = utils.get_job()
    assert found["run_mode"] is RunMode.task
    assert f"Run mode: {found['run_mode']}" == "Run mode: ##task"
    assert found["socket_id"] is SocketID.shell
    parent = utils.get_parent()
    assert parent is not None
    assert parent["header"]["msg_id"] == "m1"
    assert utils.get_parent(found) == parent
    assert utils.get_metadata()["other"] == 1
    assert utils.get_tags() == ["thread", "timeout=2.5"]


@both
def test_the_job_follows_calls_tasks_threads_and_callbacks(
    backend: Backend, job: JobContext
) -> None:
    async def tags_later() -> list[str]:
        await sleep(backend, 0)
        return utils.get_tags()

    async def main(caller: Caller) -> None:
        expected = ["thread", "timeout=2.5"]
        assert await caller.call_soon(utils.get_tags) == expected
        assert await caller.call_soon(tags_later) == expected
        assert await Caller.to_thread(utils.get_tags) == expected
        assert await Caller.to_thread(tags_later) == expected
        assert await caller.call_later(0.001, utils.get_tags) == expected

    run_with_caller(backend, main)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, None),
        ({"timeout": 3}, 3.0),
        ({"timeout": "0.5"}, 0.5),
        ({"timeout": "soon"}, None),
        ({"timeout": 0}, None),
        ({"timeout": -1}, None),
        ({"timeout": True}, None),
        ({"timeout": 1e400}, None),
        ({"tags": ["timeout=4"]}, 4.0),
        ({"tags": ["timeout="]}, None),
        ({"tags": ["timeout=4"], "timeout": 5}, 5.0),
        ({"tags": ["timeout=4"], "timeout": 0}, None),
        ({"tags": "timeout=4"}, None),
    ],
)
def test_a_cells_timeout_is_that_of_its_metadata_then_of_its_tag(
    metadata: dict[str, Any], expected: float | None
) -> None:
    job = make_job().as_job()
    job["msg"]["metadata"] = metadata
    assert utils.get_execute_request_timeout(job) == expected


def test_the_shells_timeout_is_the_last_resort(kernel: SimpleNamespace) -> None:
    kernel.shell.execute_request_timeout = 9
    assert utils.get_execute_request_timeout() == 9.0
    job = make_job({"timeout": 1}).as_job()
    assert utils.get_execute_request_timeout(job) == 1.0
    job = make_job({"timeout": 0}).as_job()
    assert utils.get_execute_request_timeout(job) is None


def test_the_execution_count_is_that_of_the_cell_else_of_the_kernel(
    kernel: SimpleNamespace, job: JobContext
) -> None:
    assert utils.get_execution_count() == 12
    job.execution_count = 3
    assert utils.get_execution_count() == 3


def test_a_thread_can_be_hidden_from_the_debugger() -> None:
    thread: Any = threading.Thread()
    utils.mark_thread_pydev_do_not_trace(thread, "hidden")
    assert (thread.name, thread.pydev_do_not_trace) == ("hidden", True)
    utils.mark_thread_pydev_do_not_trace(thread, remove=True)
    assert (thread.name, thread.pydev_do_not_trace) == ("hidden", False)


def test_the_current_thread_is_hidden_for_a_while() -> None:
    here: Any = threading.current_thread()
    with utils.do_not_debug_this_thread():
        assert here.pydev_do_not_trace is not utils.LAUNCHED_BY_DEBUGPY
    if not utils.LAUNCHED_BY_DEBUGPY:
        assert here.pydev_do_not_trace is False


def test_a_nested_attribute_is_set_by_its_dotted_name() -> None:
    inner = SimpleNamespace(number=1, ratio=0.5, text="a", flag=False, any=None)
    outer = SimpleNamespace(inner=inner)
    assert utils.setattr_nested(outer, "inner.number", "7") == {"inner.number": 7}
    assert utils.setattr_nested(outer, "inner.ratio", "0.25") == {"inner.ratio": 0.25}
    assert utils.setattr_nested(outer, "inner.text", "7") == {"inner.text": "7"}
    assert utils.setattr_nested(outer, "inner.flag", "True") == {"inner.flag": True}
    assert utils.setattr_nested(outer, "inner.any", [1]) == {"inner.any": [1]}
    assert utils.setattr_nested(outer, "inner.none.number", 1) == {}
    assert utils.setattr_nested(outer, "inner.unknown", 1) == {}
    assert not hasattr(inner, "unknown")


def test_text_is_never_evaluated() -> None:
    target = SimpleNamespace(number=1, any=None)
    with pytest.raises(ValueError, match="__import__"):
        utils.setattr_nested(target, "number", "__import__('os').getpid()")
    utils.setattr_nested(target, "any", "1 + 1")
    assert target.any == "1 + 1"


@both
def test_a_task_can_wait_for_an_event_of_threads(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        event = threading.Event()
        waiting = [caller.call_soon(utils.wait_thread_event, event) for _ in range(1000)]
        await until(backend, lambda: caller.scheduler.outstanding == 1000, "they wait")
        assert threading.active_count() <= 3
        await Caller.to_thread(event.set)
        done, _ = await Caller.wait(waiting)
        assert [future.result() for future in done] == [None] * 1000
        await utils.wait_thread_event(event)

    run_with_caller(backend, main)


@both
def test_a_cancelled_wait_leaves_an_event_to_the_others(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        event = threading.Event()
        blocked = threading.Thread(target=event.wait, args=(DEADLINE_S,))
        blocked.start()
        first, second = (caller.call_soon(utils.wait_thread_event, event) for _ in range(2))
        await until(backend, lambda: caller.scheduler.outstanding == 2, "both wait")
        first.cancel()
        await first.wait(result=False)
        assert not event.is_set()
        event.set()
        await second
        blocked.join(DEADLINE_S)
        wait_until(lambda: not blocked.is_alive(), "the thread goes on too")

    run_with_caller(backend, main)
