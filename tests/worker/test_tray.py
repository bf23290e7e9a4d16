"""The next cell lies in the tray: taken where a cell has ended well, and left where it has not."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from unstuck.protocol import Finished, Publish, Stream
from unstuck.typing import MsgType, RunMode
from unstuck_broker.tray import LARGEST_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from worker.broker_double import WorkerDouble

COMM = """
import comm
seen = []
def take(comm, message):
    comm.on_msg(lambda message: seen.append(message['content']['data']))
comm.get_comm_manager().register_target('t', take)
"""
PAUSE = "import time\ndef pause():\n    for _ in range(3000): time.sleep(0.01)\n"
"""In steps: a signal that comes right before one long sleep would not end it."""


def end_of(worker: WorkerDouble, job: int) -> Finished:
    finished = worker.wait(job).finished
    assert finished is not None
    return finished


def interrupt(worker: WorkerDouble, job: int) -> None:
    """Interrupt until the job has ended: IPython itself may take one for its own."""
    for _ in range(20):
        worker.signal()
        with suppress(AssertionError):
            worker.wait(job, 0.5)
            return
    raise AssertionError(worker.describe())


def test_a_cell_that_ends_well_is_followed_by_the_one_in_the_tray(worker: WorkerDouble) -> None:
    second = worker.lend("x + 1")
    third = worker.lend("x + 2")
    first = worker.submit("x = 1; x")
    assert end_of(worker, first).took_next
    assert worker.wait(second).result == "2"
    assert end_of(worker, second).took_next
    assert worker.wait(third).result == "3"
    assert not end_of(worker, third).took_next
    counts = [worker.jobs[job].reply["execution_count"] for job in (first, second, third)]
    assert counts == [counts[0], counts[0] + 1, counts[0] + 2]


def test_the_largest_cell_that_is_lent_is_taken_whole(worker: WorkerDouble) -> None:
    second = worker.lend(f"len('{'x' * (LARGEST_BYTES - 200)}')")
    first = worker.submit("1")
    assert end_of(worker, first).took_next
    assert worker.wait(second).result == str(LARGEST_BYTES - 200)


def test_the_end_of_a_cell_comes_before_all_that_the_next_one_says(worker: WorkerDouble) -> None:
    second = worker.lend("print('two'); import os; _ = os.write(1, b'c')")
    first = worker.submit("print('one')")
    worker.wait(second)
    said = [m.job for m in worker.all if isinstance(m, Stream | Finished)]
    jobs = [job for job in said if job in (first, second)]
    assert jobs == sorted(jobs, key=[first, second].index)
    assert set(jobs) == {first, second}
    assert worker.jobs[second].text() == "two\nc"


ENDS = {
    "error": "1 / 0",
    "exit": "exit(keep_kernel=True)",
    "concurrency mode": "%set_concurrency_mode default",
    "syntax error": "1 +",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_next_cell_stays_where_its_turn_is_not_certain(worker: WorkerDouble, end: str) -> None:
    second = worker.lend("ran = True")
    first = worker.submit(ENDS[end])
    assert not end_of(worker, first).took_next
    assert worker.take_back()
    assert "ran" not in worker.run("print(*globals())").text().split()
    assert worker.jobs[second].finished is None


def test_an_error_that_stops_nothing_is_followed_by_the_next(worker: WorkerDouble) -> None:
    second = worker.lend("1 + 1")
    first = worker.submit("1 / 0", stop_on_error=False)
    assert end_of(worker, first).took_next
    assert worker.wait(second).result == "2"


def test_an_interrupted_cell_is_not_followed(worker: WorkerDouble) -> None:
    first = worker.submit("print('begun')\nwhile True: pass")
    worker.lend("2")
    worker.wait_for(worker.jobs[first].text)
    worker.signal()
    assert not end_of(worker, first).took_next
    assert worker.take_back()


@pytest.mark.parametrize("mode", [RunMode.task, RunMode.thread])
def test_cells_beside_the_queue_take_nothing(worker: WorkerDouble, mode: RunMode) -> None:
    worker.lend("2")
    assert not end_of(worker, worker.submit("1", mode=mode)).took_next
    assert worker.take_back()


def test_an_idle_worker_leaves_the_tray_alone(worker: WorkerDouble) -> None:
    worker.run("1")
    job = worker.lend("2")
    worker.ping()
    assert worker.jobs[job].finished is None
    assert worker.take_back()


def test_comm_messages_that_came_before_go_first(worker: WorkerDouble, tmp_path: Path) -> None:
    worker.run(COMM)
    worker.request(MsgType.comm_open, {"comm_id": "c", "target_name": "t", "data": {}})
    lent = tmp_path / "lent"
    first = worker.submit(
        f"import os, time\nwhile not os.path.exists({str(lent)!r}): time.sleep(0.001)"
    )
    worker.request(MsgType.comm_msg, {"comm_id": "c", "data": {"value": 7}})
    second = worker.lend("print(seen)")
    lent.touch()
    assert end_of(worker, first).took_next
    assert worker.wait(second).text() == "[{'value': 7}]\n"


def test_tasks_of_the_event_loop_go_on_between_two_cells(worker: WorkerDouble) -> None:
    second = worker.lend("print(done)")
    first = worker.submit(
        "import asyncio\n"
        "async def later():\n"
        "    global done\n"
        "    done = True\n"
        "done = False; task = asyncio.ensure_future(later())"
    )
    assert end_of(worker, first).took_next
    assert worker.wait(second).text() == "True\n"


def test_a_forked_child_takes_nothing(worker: WorkerDouble) -> None:
    second = worker.lend("print('once')")
    first = worker.submit(
        "import os\npid = os.fork()\nif pid: _ = os.waitpid(pid, 0)\nprint(pid > 0)"
    )
    assert end_of(worker, first).took_next
    assert worker.wait(second).text() == "once\n"
    assert worker.run("1").result == "1"


# --- a value leaves with the end of its cell ------------------------------------------------------


def test_a_value_is_there_before_code_that_runs_at_the_end_of_cells(worker: WorkerDouble) -> None:
    worker.run(
        f"{PAUSE}is_slow = False\ndef slow(*_):\n    if is_slow: pause()\n"
        "get_ipython().events.register('post_run_cell', slow)"
    )
    job = worker.submit("is_slow = True; 'value'")
    worker.wait_for(lambda: worker.jobs[job].published("execute_result"))
    assert worker.jobs[job].finished is None
    interrupt(worker, job)
    worker.run("get_ipython().events.unregister('post_run_cell', slow)")


GOES_ON = {
    "a call of the hook": "import sys; sys.displayhook('value'); pause()",
    "a call of the hook in the last line": "import sys\n[sys.displayhook('value'), pause()]",
    "code that is run in its own right": ("exec(compile('\"value\"', 'x', 'single')); pause()"),
    "a cell in a cell": "get_ipython().run_cell('\"value\"'); pause()",
    "user expressions": "'value'",
}


@pytest.mark.parametrize("what", GOES_ON)
def test_a_value_is_there_at_once_where_its_cell_goes_on(worker: WorkerDouble, what: str) -> None:
    worker.run(PAUSE)
    expressions = {"x": "pause()"} if what == "user expressions" else {}
    job = worker.submit(GOES_ON[what], user_expressions=expressions)
    worker.wait_for(lambda: worker.jobs[job].published("execute_result"))
    assert worker.jobs[job].finished is None
    interrupt(worker, job)


def test_each_value_is_there_at_once_where_all_are_displayed(worker: WorkerDouble) -> None:
    worker.run(f"{PAUSE}get_ipython().ast_node_interactivity = 'all'")
    job = worker.submit("'value'\npause()")
    worker.wait_for(lambda: worker.jobs[job].published("execute_result"))
    assert worker.jobs[job].finished is None
    interrupt(worker, job)
    worker.run("get_ipython().ast_node_interactivity = 'last_expr'")


def test_a_value_comes_behind_the_text_before_it_and_with_the_end(worker: WorkerDouble) -> None:
    job = worker.submit("import os\nprint('text'); _ = os.write(1, b'c text\\n')\n'value'")
    worker.wait(job)
    said = [m for m in worker.all if isinstance(m, Stream | Publish | Finished)][-4:]
    assert [type(message) for message in said] == [Stream, Stream, Publish, Finished]
    start_s = time.monotonic()
    worker.run("await __import__('asyncio').sleep(0, 'value')")
    assert time.monotonic() - start_s < 20
