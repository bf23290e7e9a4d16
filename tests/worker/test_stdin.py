"""`input()` and `getpass()` ask the frontend of the cell that calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unstuck.typing import MsgType, RunMode

if TYPE_CHECKING:
    from worker.broker_double import WorkerDouble


def wait_for_question(worker: WorkerDouble) -> tuple[int, str, bool]:
    worker.wait_for(lambda: worker.requests)
    request = worker.requests[0]
    return request.job, request.prompt, request.password


@pytest.mark.parametrize("mode", [mode for mode in RunMode if mode is not RunMode.process])
def test_input_gives_the_answer_in_every_mode(worker: WorkerDouble, mode: RunMode) -> None:
    job = worker.submit("input('name? ')", mode=mode)
    assert wait_for_question(worker) == (job, "name? ", False)
    worker.answer("Ada")
    assert worker.wait(job).result == "'Ada'"


def test_input_in_a_process_of_its_own_fails_at_once(worker: WorkerDouble) -> None:
    job = worker.submit("input('name? ')", mode=RunMode.process)
    assert worker.wait(job).reply["ename"] == "StdinNotImplementedError"


def test_getpass_hides_what_is_typed(worker: WorkerDouble) -> None:
    job = worker.submit("import getpass; getpass.getpass()")
    assert wait_for_question(worker) == (job, "Password: ", True)
    worker.answer("secret")
    assert worker.wait(job).result == "'secret'"


def test_text_before_a_question_is_out_before_it(worker: WorkerDouble) -> None:
    job = worker.submit("print('listen', end=''); input()")
    wait_for_question(worker)
    assert worker.jobs[job].text() == "listen"
    worker.answer("")
    worker.wait(job)


def test_a_cell_without_stdin_is_refused(worker: WorkerDouble) -> None:
    outputs = worker.run("input()", allow_stdin=False)
    assert outputs.reply["ename"] == "StdinNotImplementedError"
    assert "does not support input requests" in outputs.reply["evalue"]
    assert worker.run("import sys; sys.stdin.readline()").result == "''"


def test_completions_and_thread_cells_work_while_a_cell_asks(worker: WorkerDouble) -> None:
    job = worker.submit("input()")
    wait_for_question(worker)
    assert worker.run("1 + 1", mode=RunMode.thread).result == "2"
    request = {"code": "prin", "cursor_pos": 4}
    asked = worker.request(MsgType.complete_request, request, mode=RunMode.thread)
    assert "print" in worker.wait(asked).reply["matches"]
    worker.answer("done")
    assert worker.wait(job).result == "'done'"


def test_two_threads_may_ask_at_the_same_time(worker: WorkerDouble) -> None:
    jobs = [worker.submit(f"input('{i}')", mode=RunMode.thread) for i in range(2)]
    worker.wait_for(lambda: len(worker.requests) == 2)
    for request in list(worker.requests):
        worker.requests.remove(request)
        worker.requests.insert(0, request)
        worker.answer(f"answer {request.prompt}")
    assert [worker.wait(job).result for job in jobs] == ["'answer 0'", "'answer 1'"]


def test_a_withdrawn_question_is_a_keyboard_interrupt(worker: WorkerDouble) -> None:
    job = worker.submit("input()")
    wait_for_question(worker)
    worker.answer(None)
    assert worker.wait(job).reply["ename"] == "KeyboardInterrupt"


def test_an_answer_that_nobody_waits_for_is_dropped(worker: WorkerDouble) -> None:
    job = worker.submit("input()")
    wait_for_question(worker)
    late = worker.requests[0]
    worker.answer("first")
    worker.wait(job)
    worker.requests.append(late)
    worker.answer("second")
    assert worker.run("1").result == "1"


def test_pdb_works_at_the_prompt_and_an_interrupt_ends_it(worker: WorkerDouble) -> None:
    job = worker.submit("import pdb\nvalue = 41\npdb.set_trace()\nvalue")
    _, prompt, _ = wait_for_question(worker)
    assert prompt == "ipdb> "
    worker.answer("!value += 1")
    wait_for_question(worker)
    worker.answer("c")
    assert worker.wait(job).result == "42"
    job = worker.submit("breakpoint()")
    wait_for_question(worker)
    worker.requests.clear()
    worker.signal()
    assert worker.wait(job).finished is not None
    assert worker.run("1").result == "1"


def test_post_mortem_debugging_asks_by_input(worker: WorkerDouble) -> None:
    worker.run("def fail(x): return 1 / x\nfail(0)")
    job = worker.submit("%debug")
    wait_for_question(worker)
    worker.answer("p x + 7")
    wait_for_question(worker)
    assert "7" in worker.jobs[job].text()
    worker.answer("q")
    worker.wait(job)
