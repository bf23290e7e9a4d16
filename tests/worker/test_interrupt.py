"""An interrupt ends the cell that is meant, with KeyboardInterrupt, and touches nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from unstuck.protocol import StreamName
from unstuck.typing import MsgType, RunMode
from unstuck_worker.job import BLOCKED_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker_double import Outputs, WorkerDouble


def assert_interrupted(outputs: Outputs) -> None:
    assert outputs.reply["status"] == "error"
    assert outputs.reply["ename"] == "KeyboardInterrupt"
    (error,) = outputs.published("error")
    assert error["ename"] == "KeyboardInterrupt"
    assert error["traceback"]


def assert_works(worker: WorkerDouble) -> None:
    assert worker.run("6 * 7").result == "42"


def assert_ends(worker: WorkerDouble, job: int) -> None:
    """An interrupt ends the job soon, and the worker runs other cells."""
    assert_interrupted(worker.wait(job, 10))
    assert_works(worker)


def start_busy(worker: WorkerDouble, code: str, mode: RunMode = RunMode.queue) -> int:
    """Start a cell that first prints "busy", and wait for that."""
    job = worker.submit(code, mode=mode)
    worker.wait_for(lambda: "busy" in worker.jobs[job].text())
    return job


BUSY = {
    "a loop": "print('busy')\nwhile True: pass",
    "a loop inside a function": "def spin():\n    while True: pass\nprint('busy')\nspin()",
    "a sleep": "import time\nprint('busy')\ntime.sleep(100)",
    "a lock": (
        "import threading\nlock = threading.Lock(); lock.acquire()\nprint('busy')\nlock.acquire()"
    ),
    "an await": "import asyncio\nprint('busy')\nawait asyncio.sleep(100)",
    "an await of a task": (
        "import asyncio\nasync def wait(): await asyncio.sleep(100)\n"
        "print('busy')\nawait asyncio.create_task(wait())"
    ),
    "a join of a thread": (
        "import threading, time\n"
        "t = threading.Thread(target=time.sleep, args=(1000,), daemon=True)\n"
        "t.start()\nprint('busy')\nt.join()"
    ),
    "a child process": "import subprocess\nprint('busy')\nsubprocess.run(['sleep', '100'])",
    "a flood of prints": "while True: print('busy')",
    "a comprehension": "print('busy'); [x for x in iter(int, 1)]",
}


@pytest.mark.parametrize("code", BUSY.values(), ids=BUSY)
def test_the_first_signal_ends_the_queues_cell(worker: WorkerDouble, code: str) -> None:
    job = start_busy(worker, code)
    worker.signal()
    assert_ends(worker, job)


def test_an_interrupted_shell_command_ends_as_ipython_has_it(worker: WorkerDouble) -> None:
    job = start_busy(worker, "!echo busy; sleep 100")
    worker.signal()
    outputs = worker.wait(job, 10)
    assert outputs.reply["status"] == "ok"
    assert "^C" in outputs.text()


@pytest.mark.parametrize("mode", [RunMode.task, RunMode.thread])
@pytest.mark.parametrize("kind", ["a loop inside a function", "an await"])
def test_a_named_job_is_interrupted_in_every_mode(
    worker: WorkerDouble, kind: str, mode: RunMode
) -> None:
    job = start_busy(worker, BUSY[kind], mode)
    worker.interrupt(job)
    assert_ends(worker, job)


def test_a_signal_with_nothing_running_does_nothing(worker: WorkerDouble) -> None:
    for _ in range(5):
        worker.signal()
        assert_works(worker)
    assert worker.run("1").reply["status"] == "ok"


def test_a_signal_spares_task_and_thread_cells_while_the_queue_runs(worker: WorkerDouble) -> None:
    wait = (
        "import asyncio\nprint('busy')\ngate = {name} = asyncio.Event()\nawait gate.wait()\n'done'"
    )
    task = start_busy(worker, wait.format(name="task_gate"), RunMode.task)
    thread = start_busy(
        worker,
        "import asyncio\nprint('busy')\n"
        "while not globals().get('go'): await asyncio.sleep(0.01)\n'done'",
        RunMode.thread,
    )
    job = start_busy(worker, BUSY["an await"])
    worker.signal()
    assert_interrupted(worker.wait(job, 10))
    assert worker.jobs[task].finished is None
    assert worker.jobs[thread].finished is None
    worker.run("task_gate.set(); go = True")
    assert worker.wait(task).result == "'done'"
    assert worker.wait(thread).result == "'done'"


def test_a_signal_without_a_queue_cell_ends_task_and_thread_cells(worker: WorkerDouble) -> None:
    task = start_busy(worker, BUSY["an await"], RunMode.task)
    thread = start_busy(worker, BUSY["a loop"], RunMode.thread)
    worker.signal()
    assert_interrupted(worker.wait(task, 10))
    assert_interrupted(worker.wait(thread, 10))
    assert_works(worker)


def test_a_hard_interrupt_passes_an_ignored_signal(worker: WorkerDouble) -> None:
    code = (
        "import signal\nold = signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('busy')\nwhile True: pass"
    )
    job = start_busy(worker, code)
    worker.signal()
    worker.ping()
    assert worker.jobs[job].finished is None
    worker.interrupt(job, hard=True)
    assert_interrupted(worker.wait(job, 10))
    worker.run("signal.signal(signal.SIGINT, old)")
    assert_works(worker)


def test_a_cell_that_swallows_one_interrupt_is_ended_by_the_next(worker: WorkerDouble) -> None:
    code = (
        "try:\n    print('busy')\n    while True: pass\nexcept KeyboardInterrupt:\n"
        "    print('swallowed')\n"
        "while True: pass"
    )
    job = start_busy(worker, code)
    worker.signal()
    worker.wait_for(lambda: "swallowed" in worker.jobs[job].text())
    worker.signal()
    assert_ends(worker, job)


def test_an_interrupt_that_cuts_the_traceback_of_another_is_shown_itself(
    worker: WorkerDouble,
) -> None:
    outputs = worker.run(
        "import unstuck_worker.shell as place\n"
        "def cut(error):\n"
        "    raise KeyboardInterrupt\n"
        "place.is_deep = cut\n"
        "raise KeyboardInterrupt"
    )
    assert_interrupted(outputs)
    assert_works(worker)


def test_an_await_that_swallows_the_interrupt_can_go_on_awaiting(worker: WorkerDouble) -> None:
    code = (
        "import asyncio\ntry:\n    print('busy')\n    await asyncio.sleep(100)\n"
        "except KeyboardInterrupt:\n"
        "    await asyncio.sleep(0.01)\n    print('cleaned')\n'went on'"
    )
    job = start_busy(worker, code)
    worker.signal()
    outputs = worker.wait(job, 10)
    assert outputs.result == "'went on'"
    assert "cleaned" in outputs.text()


def test_a_callback_that_blocks_the_loop_is_interrupted(worker: WorkerDouble) -> None:
    code = (
        "import asyncio\ndef spin():\n    print('busy', flush=True)\n    while True: pass\n"
        "handle = asyncio.get_running_loop().call_later(0.05, spin)"
    )
    job = worker.submit(code)
    worker.wait(job)
    worker.wait_for(lambda: "busy" in "".join(getattr(m, "text", "") for m in worker.all[-3:]))
    worker.signal()
    assert_works(worker)


BLOCKED = {
    "a call of the cell's Caller": (
        "from unstuck import Caller\ndef spin():\n    print('busy', flush=True)\n"
        "    while True: pass\nawait Caller().call_soon(spin)"
    ),
    "a coroutine of the cell's Caller": (
        "from unstuck import Caller\nasync def spin():\n    print('busy', flush=True)\n"
        "    while True: pass\nawait Caller().call_soon(spin)"
    ),
    "a call that is no Python function": (
        "import time\nfrom unstuck import Caller\nCaller().call_soon(print, 'busy', flush=True)\n"
        "await Caller().call_soon(time.sleep, 100)"
    ),
    "a task of the cell": (
        "import asyncio\nasync def spin():\n    print('busy', flush=True)\n    while True: pass\n"
        "await asyncio.create_task(spin())"
    ),
    "a cell magic": "%%task\nprint('busy', flush=True)\nwhile True: pass",
}


@pytest.mark.parametrize("code", BLOCKED.values(), ids=BLOCKED)
def test_a_cell_is_interrupted_whose_event_loop_is_held_up_by_what_it_awaits(
    worker: WorkerDouble, code: str
) -> None:
    job = start_busy(worker, code)
    end_by_signals(worker, job, worker.signal)


@pytest.mark.parametrize("mode", [RunMode.task, RunMode.thread])
@pytest.mark.parametrize("kind", ["a call of the cell's Caller", "a cell magic"])
def test_a_named_job_is_interrupted_whose_event_loop_is_held_up(
    worker: WorkerDouble, kind: str, mode: RunMode
) -> None:
    job = start_busy(worker, BLOCKED[kind], mode)
    end_by_signals(worker, job, lambda: worker.interrupt(job, hard=True))


def end_by_signals(worker: WorkerDouble, job: int, signal: Callable[[], None]) -> None:
    """Interrupt twice: who was not woken by the first is held up."""
    signal()
    blocked_s = time.monotonic() + 2 * BLOCKED_S
    worker.wait_for(lambda: time.monotonic() > blocked_s)
    assert worker.jobs[job].finished is None
    signal()
    assert_ends(worker, job)
    assert (
        worker.run("from unstuck import Caller\nawait Caller().call_soon(lambda: 5)").result == "5"
    )


def test_the_body_of_a_cell_in_a_thread_ends_with_the_cell(worker: WorkerDouble) -> None:
    job = start_busy(
        worker,
        "%%thread\nended = False\ntry:\n    print('busy', flush=True)\n    while True: pass\n"
        "finally:\n    ended = True",
    )
    worker.signal()
    assert_interrupted(worker.wait(job, 10))
    worker.wait_for(lambda: worker.run("ended").result == "True", 10)
    assert_works(worker)


def test_a_comm_handler_that_blocks_is_interrupted(worker: WorkerDouble) -> None:
    worker.run(
        "from comm import get_comm_manager\ndef target(comm, message):\n"
        "    print('busy', flush=True)\n"
        "    while True: pass\nget_comm_manager().register_target('t', target)"
    )
    job = worker.request(
        MsgType.comm_open, {"comm_id": "c", "target_name": "t", "data": {}}, mode=RunMode.blocking
    )
    worker.wait_for(lambda: "busy" in worker.jobs[job].text())
    worker.signal()
    outputs = worker.wait(job, 10)
    assert "KeyboardInterrupt" in outputs.text(StreamName.stderr)
    assert_works(worker)


def test_input_is_interrupted(worker: WorkerDouble) -> None:
    job = worker.submit("input('name?')")
    worker.wait_for(lambda: worker.requests)
    worker.requests.clear()
    worker.signal()
    assert_ends(worker, job)


def test_input_in_a_thread_cell_is_interrupted(worker: WorkerDouble) -> None:
    job = worker.submit("input('name?')", mode=RunMode.thread)
    worker.wait_for(lambda: worker.requests)
    worker.requests.clear()
    worker.interrupt(job)
    assert_interrupted(worker.wait(job, 10))


def test_many_interrupts_of_short_cells_leave_one_end_each_and_a_working_shell(
    worker: WorkerDouble,
) -> None:
    for number in range(150):
        job = worker.submit("for i in range(300): print(i)" if number % 2 else "x = 1; x")
        worker.pump(0.0)
        worker.signal()
        if number % 3 == 0:
            worker.interrupt(job, hard=True)
        outputs = worker.wait(job, 10)
        assert outputs.reply["status"] in ("ok", "error")
        if outputs.reply["status"] == "error":
            assert outputs.reply["ename"] == "KeyboardInterrupt"
    assert_works(worker)
    assert worker.ping().number


def test_many_interrupts_of_awaiting_cells_do_not_leak_into_the_next(worker: WorkerDouble) -> None:
    for _ in range(100):
        job = worker.submit("import asyncio\nfor _ in range(20): await asyncio.sleep(0)")
        worker.pump(0.0)
        worker.signal()
        worker.wait(job, 10)
        outputs = worker.run("import asyncio\nawait asyncio.sleep(0.001)\n'next'")
        assert outputs.result == "'next'"


def test_no_signal_is_lost_on_the_way_into_a_wait(worker: WorkerDouble) -> None:
    waits = ("time.sleep(100)", "lock.acquire()", "await asyncio.sleep(100)")
    worker.run("import asyncio, threading, time; lock = threading.Lock(); lock.acquire()")
    for number in range(150):
        job = start_busy(worker, f"print('busy', end=''); {waits[number % len(waits)]}")
        worker.signal()
        assert worker.wait(job, 5).reply["ename"] == "KeyboardInterrupt"


def test_a_signal_interrupts_once(worker: WorkerDouble) -> None:
    code = (
        "import time\nseen = 0\nprint('busy', end='')\n"
        "for _ in range(30):\n    try: time.sleep(0.01)\n    except KeyboardInterrupt: seen += 1\n"
        "seen"
    )
    worker.run("seen = 0")
    for _ in range(20):
        job = start_busy(worker, code)
        worker.signal()
        outputs = worker.wait(job, 10)
        if outputs.reply["status"] == "ok":
            assert outputs.result == "1"
