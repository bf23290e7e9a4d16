"""Interrupts: by message and by signal, of one job or of the queue, once and again."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from e2e.processes import GIL_HELD, wait_until_gone, worker
from e2e.spec import ours

if TYPE_CHECKING:
    from conftest import StartKernel
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ours

SETTINGS = ("interrupt_hard_s=0.2", "interrupt_grace_s=0.5", "snapshots=off")
ENDLESS = "print('begun')\nwhile True: pass"
SLEEPING = "print('begun')\nimport time\ntime.sleep(1000)"
AGAIN = "interrupt again to kill it; all variables of this session will be lost"


def begin(kernel: Kernel, code: str) -> Result:
    """Start a cell that prints "begun" when it runs."""
    result = kernel.execute(code, allow_stdin=True)
    kernel.wait_for_text(result, "begun")
    return result


def aim(kernel: Kernel, result: Result) -> None:
    """Interrupt one request."""
    content = {"msg_id": result.msg_id}
    assert kernel.request("interrupt_request", content, channel="control").status == "ok"


def is_interrupted(result: Result) -> bool:
    return bool(result.content["ename"] == "KeyboardInterrupt")


@pytest.mark.parametrize("code", [ENDLESS, SLEEPING, "print('begun')\ninput('never answered')"])
def test_an_interrupt_by_message_or_signal_ends_the_cell_and_keeps_the_variables(
    kernel: Kernel, code: str
) -> None:
    pid = worker(kernel).pid
    result = begin(kernel, code)
    kernel.interrupt()
    assert is_interrupted(kernel.finish(result))
    result = begin(kernel, code)
    os.kill(kernel.pid, signal.SIGINT)
    assert is_interrupted(kernel.finish(result))
    assert worker(kernel).pid == pid


def test_an_event_loop_inside_a_cell_survives_its_interrupt(kernel: Kernel) -> None:
    # An interrupt in the midst of its own code breaks trio for good.
    code = (
        "import trio\nasync def wait():\n    print('begun')\n    try: await trio.sleep(1000)\n"
        "    finally: print('left')\ntrio.run(wait)"
    )
    for _ in range(2):
        result = begin(kernel, code)
        kernel.interrupt()
        assert is_interrupted(kernel.finish(result))
        assert (result.stdout, result.stderr) == ("begun\nleft\n", "")
    result = begin(kernel, SLEEPING)
    kernel.interrupt()
    assert is_interrupted(kernel.finish(result))


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        *(("##queue", ENDLESS), ("##queue", SLEEPING), ("##task", ENDLESS), ("##task", SLEEPING)),
        ("##thread", ENDLESS),
    ],
)
def test_one_interrupt_ends_a_cell_whose_own_call_holds_up_its_event_loop(
    kernel: Kernel, mode: str, code: str
) -> None:
    pid = worker(kernel).pid
    body = code.replace("\n", "\n    ")
    call = "from unstuck import Caller\nawait Caller().call_soon(run)"
    result = begin(kernel, f"{mode}\ndef run():\n    {body}\n{call}")
    kernel.interrupt()
    assert is_interrupted(kernel.finish(result))
    assert kernel.run_ok("'next'").value == "'next'"
    assert worker(kernel).pid == pid


def test_an_interrupt_lets_a_stopped_worker_go_on_and_keeps_the_variables(kernel: Kernel) -> None:
    pid = worker(kernel).pid
    result = begin(
        kernel,
        "import os, signal\nprint('begun')\nos.kill(os.getpid(), signal.SIGSTOP)\nwhile 1: 1",
    )
    kernel.interrupt()
    assert is_interrupted(kernel.finish(result))
    assert worker(kernel).pid == pid


def test_an_interrupt_of_nothing_does_nothing(kernel: Kernel) -> None:
    for _ in range(3):
        kernel.interrupt()
        os.kill(kernel.pid, signal.SIGINT)
    assert kernel.run_ok("1 + 1").value == "2"


@pytest.mark.parametrize(
    "mode",
    ["##task\nprint('begun')\nimport asyncio\nawait asyncio.sleep(1000)", f"##thread\n{ENDLESS}"],
)
def test_an_interrupt_with_a_msg_id_ends_that_job_and_no_other(kernel: Kernel, mode: str) -> None:
    first, second = begin(kernel, mode), begin(kernel, mode)
    queued = begin(kernel, "print('begun')\nimport asyncio\nawait asyncio.sleep(1000)")
    aim(kernel, second)
    assert is_interrupted(kernel.finish(second))
    assert not first.is_complete
    assert not queued.is_complete
    aim(kernel, queued)
    assert is_interrupted(kernel.finish(queued))
    assert not first.is_complete
    aim(kernel, first)
    assert is_interrupted(kernel.finish(first))


def test_an_interrupt_without_msg_id_leaves_tasks_and_threads_alone(kernel: Kernel) -> None:
    beside = begin(kernel, f"##thread\n{ENDLESS}")
    queued = begin(kernel, ENDLESS)
    kernel.interrupt()
    assert is_interrupted(kernel.finish(queued))
    assert not beside.is_complete
    kernel.interrupt()
    assert is_interrupted(kernel.finish(beside))


@pytest.mark.parametrize("own_session", [False, True])
def test_an_interrupt_ends_the_program_that_the_cell_waits_for(
    kernel: Kernel, own_session: bool
) -> None:
    result = begin(
        kernel,
        "import subprocess\n"
        f"child = subprocess.Popen(['sleep', '1000'], start_new_session={own_session})\n"
        "print('begun', child.pid)\n"
        "child.wait()",
    )
    kernel.wait(lambda: result.stdout.endswith("\n"), "pid")
    child = psutil.Process(int(result.stdout.split()[1]))
    kernel.interrupt()
    assert is_interrupted(kernel.finish(result))
    if own_session:
        child.kill()  # The terminal's Ctrl-C would not reach it either.
    wait_until_gone([child])


def test_an_interrupt_aborts_what_came_before_it_and_nothing_later(kernel: Kernel) -> None:
    slow = begin(
        kernel,
        "import time\n"
        "try:\n    print('begun')\n    while True: pass\n"
        "finally:\n    print('ending')\n    time.sleep(0.5)",
    )
    before = kernel.execute("'before'")
    kernel.interrupt()
    kernel.wait_for_text(slow, "ending")
    after = kernel.execute("'after'")
    assert is_interrupted(kernel.finish(slow))
    assert kernel.finish(before).status == "aborted"
    assert kernel.finish(after).value == "'after'"


@ours
def test_an_interrupt_never_overtakes_what_was_sent_before_it(kernel: Kernel) -> None:
    for _ in range(30):
        slow = begin(kernel, "print('begun')\nwhile True: pass")
        before = [kernel.execute(f"'before {number}'") for number in range(3)]
        kernel.interrupt()
        assert is_interrupted(kernel.finish(slow))
        assert {kernel.finish(cell).status for cell in before} == {"aborted"}


def test_the_second_interrupt_of_a_cell_that_does_not_react_kills_as_announced(
    kernel: Kernel,
) -> None:
    pid = worker(kernel).pid
    result = begin(kernel, GIL_HELD)
    kernel.interrupt()
    kernel.wait_for_text(result, AGAIN)
    assert "still running" in result.stderr
    assert "line 3" in result.stderr, "the stack names the line of the cell"
    assert not result.is_complete
    kernel.interrupt()
    assert is_interrupted(kernel.finish(result))
    assert "all variables were lost" in result.content["evalue"]
    assert worker(kernel).pid != pid


def test_two_quick_interrupts_do_not_cost_the_session(kernel: Kernel) -> None:
    pid = worker(kernel).pid
    result = begin(kernel, "print('begun')\nsum(range(2 * 10**7))\nwhile True: pass")
    kernel.interrupt()
    kernel.interrupt()
    assert is_interrupted(kernel.finish(result))
    assert worker(kernel).pid == pid


def test_a_thread_cell_in_c_is_reported_and_the_queue_goes_on(kernel: Kernel) -> None:
    pid = worker(kernel).pid
    stuck = begin(kernel, f"##thread\n{SLEEPING}")
    kernel.interrupt()
    kernel.wait_for_text(stuck, AGAIN)
    assert kernel.run_ok("'the queue goes on'").value == "'the queue goes on'"
    assert worker(kernel).pid == pid
    aim(kernel, stuck)
    assert is_interrupted(kernel.finish(stuck))
    assert worker(kernel).pid != pid


def test_with_never_nothing_is_killed_but_by_a_restart(start_kernel: StartKernel) -> None:
    kernel = start_kernel(settings=[*SETTINGS, "interrupt_policy=never"])
    result = begin(kernel, GIL_HELD)
    kernel.interrupt()
    kernel.wait_for_text(result, "interrupt_policy is never: the worker is left alone")
    kernel.interrupt()
    assert not result.is_complete
    assert kernel.request("restart_request", channel="control").status == "ok"
    assert kernel.finish(result).content["ename"] == "KernelRestarted"
    assert kernel.run_ok("1 + 1").value == "2"
