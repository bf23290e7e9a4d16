"""Context: variables last from cell to cell, and running code finds its own request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from unstuck.protocol import CloseSubshell, OpenSubshell
from unstuck.typing import MsgType, RunMode

if TYPE_CHECKING:
    from worker.broker_double import WorkerDouble


def test_context_variables_of_a_cell_are_seen_by_the_next(worker: WorkerDouble) -> None:
    worker.run("from contextvars import ContextVar; var = ContextVar('var'); token = var.set(1)")
    assert worker.run("var.get()").result == "1"
    worker.run("import asyncio; await asyncio.sleep(0); var.set(2)")
    assert worker.run("var.get()").result == "2"
    for mode in (RunMode.task, RunMode.thread):
        assert worker.run("var.set(var.get() + 10).old_value", mode=mode).result == "2"
    assert worker.run("var.get()").result == "2"


def test_a_token_of_an_earlier_cell_can_be_used(worker: WorkerDouble) -> None:
    worker.run("from contextvars import ContextVar; v = ContextVar('v'); token = v.set(1)")
    assert worker.run("v.reset(token); v.get('unset')").result == "'unset'"


@pytest.mark.parametrize("mode", list(RunMode))
def test_get_parent_is_the_running_request(worker: WorkerDouble, mode: RunMode) -> None:
    job = worker.submit(
        "ip = get_ipython()\n"
        "ip.get_parent()['header']['msg_id'], ip.parent_header is ip.get_parent()",
        mode=mode,
    )
    assert worker.wait(job).result == f"('msg-{job}', True)"


def test_get_job_tells_mode_and_message(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "from unstuck import utils\nprint('Run mode:', utils.get_job()['run_mode'])\n"
        "utils.get_job()['msg']['content']['silent']",
        mode=RunMode.task,
    )
    assert outputs.text() == "Run mode: ##task\n"
    assert outputs.result == "False"


def test_the_main_thread_has_a_running_loop_and_a_caller(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import asyncio\nfrom unstuck import Caller\n"
        "(asyncio.get_running_loop().is_running(), Caller().protected,"
        " await Caller().call_soon(lambda: 5), await Caller.to_thread(lambda: 6))"
    )
    assert outputs.result == "(True, True, 5, 6)"


def test_a_queue_cell_that_awaits_lets_task_cells_run(worker: WorkerDouble) -> None:
    job = worker.submit("import asyncio; gate = asyncio.Event(); await gate.wait(); 'opened'")
    assert worker.run("gate.set(); 'task'", mode=RunMode.task).result == "'task'"
    assert worker.wait(job).result == "'opened'"


def test_named_threads_and_trio_are_chosen_by_the_directive(worker: WorkerDouble) -> None:
    named = "##thread name=mine\nimport threading; threading.current_thread().name"
    assert worker.run(named, mode=RunMode.thread).result == "'mine'"
    trio = "##thread backend=trio\nimport trio; await trio.sleep(0.01); 'trio'"
    assert worker.run(trio, mode=RunMode.thread).result == "'trio'"
    job = worker.submit(
        "##thread backend=trio\nprint('busy'); await trio.sleep(100)", mode=RunMode.thread
    )
    worker.wait_for(lambda: "busy" in worker.jobs[job].text())
    worker.interrupt(job)
    assert worker.wait(job).reply["ename"] == "KeyboardInterrupt"


def test_a_subshell_runs_its_cells_in_order_in_one_thread_and_context(worker: WorkerDouble) -> None:
    worker.send_thread(OpenSubshell("s1"))
    first = worker.submit(
        "import threading, time\nfrom contextvars import ContextVar\nmine = ContextVar('mine')\n"
        "time.sleep(0.1); mine.set(7); order = ['first']; threading.current_thread().name",
        subshell="s1",
    )
    second = worker.submit("order.append('second'); mine.get()", subshell="s1")
    assert worker.wait(first).result == "'subshell-s1'"
    assert worker.wait(second).result == "7"
    assert worker.run("order").result == "['first', 'second']"
    busy = worker.submit("print('on')\nwhile True: pass", subshell="s1")
    worker.wait_for(lambda: worker.jobs[busy].messages)
    assert worker.run("'main goes on'").result == "'main goes on'"
    worker.interrupt(busy)
    assert worker.wait(busy).reply["ename"] == "KeyboardInterrupt"
    worker.send_thread(CloseSubshell("s1"))
    names = "[t.name for t in threading.enumerate()]"
    end = time.monotonic() + 10
    while "subshell-s1" in worker.run(names).result:
        assert time.monotonic() < end


def test_the_worker_answers_pings_and_counts_steps(worker: WorkerDouble) -> None:
    first = worker.ping().main_steps
    end = time.monotonic() + 10
    while worker.ping().main_steps == first:
        assert time.monotonic() < end
    job = worker.submit("print('busy')\nwhile True: pass")
    worker.wait_for(lambda: "busy" in worker.jobs[job].text())
    worker.ping()
    stuck = worker.ping().main_steps
    assert [worker.ping().main_steps for _ in range(5)] == [stuck] * 5
    worker.signal()
    worker.wait(job)


def test_comm_messages_are_handled_in_order_while_a_cell_awaits(worker: WorkerDouble) -> None:
    worker.run(
        "import asyncio\nfrom comm import get_comm_manager\ngot = []\n"
        "def target(comm, message):\n"
        "    comm.on_msg(lambda m: got.append(m['content']['data']['n']))\n"
        "get_comm_manager().register_target('numbers', target)"
    )
    cell = worker.submit("while len(got) < 50: await asyncio.sleep(0.001)\ngot == list(range(50))")
    opening = {"comm_id": "n", "target_name": "numbers", "data": {}}
    jobs = [worker.request(MsgType.comm_open, opening, mode=RunMode.blocking)]
    jobs += [
        worker.request(MsgType.comm_msg, {"comm_id": "n", "data": {"n": n}}, mode=RunMode.task)
        for n in range(50)
    ]
    for job in jobs:
        assert worker.wait(job).finished is not None
    assert worker.wait(cell).result == "True"


def test_questions_are_answered_while_the_main_thread_is_busy(worker: WorkerDouble) -> None:
    worker.run("found_name = [1]")
    job = worker.submit("print('busy')\nwhile True: pass")
    worker.wait_for(lambda: "busy" in worker.jobs[job].text())
    questions: dict[MsgType, dict[str, object]] = {
        MsgType.complete_request: {"code": "found_n", "cursor_pos": 7},
        MsgType.inspect_request: {"code": "found_name", "cursor_pos": 3},
        MsgType.is_complete_request: {"code": "for x in y:"},
        MsgType.history_request: {"hist_access_type": "tail", "n": 2, "output": False, "raw": True},
    }
    replies = {
        kind: worker.wait(worker.request(kind, content, mode=RunMode.thread)).reply
        for kind, content in questions.items()
    }
    assert "found_name" in replies[MsgType.complete_request]["matches"]
    assert replies[MsgType.inspect_request]["found"]
    assert replies[MsgType.is_complete_request]["status"] == "incomplete"
    assert len(replies[MsgType.history_request]["history"]) == 2
    worker.signal()
    worker.wait(job)


def test_questions_are_answered_in_the_main_thread_when_blocking(worker: WorkerDouble) -> None:
    request = {"code": "prin", "cursor_pos": 4}
    job = worker.request(MsgType.complete_request, request, mode=RunMode.blocking)
    assert "print" in worker.wait(job).reply["matches"]


def test_a_thousand_cells_leave_nothing_running(worker: WorkerDouble) -> None:
    jobs = [worker.submit("pass", mode=mode) for mode in (RunMode.queue, RunMode.task) * 500]
    for job in jobs:
        assert worker.wait(job).reply["status"] == "ok"
    assert worker.run("import asyncio; len(asyncio.all_tasks()) < 5").result == "True"
