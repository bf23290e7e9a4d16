"""Hangs: the cell says where it hangs, and stacks are there for the asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.processes import GIL_HELD, worker
from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

pytestmark = ours

SETTINGS = ("hang_report_s=1", "interrupt_policy=always", "interrupt_grace_s=0.3")


def stack(kernel: Kernel) -> str:
    """Ask for the stacks of all threads."""
    reply = kernel.request("stack_request", channel="control")
    assert reply.status == "ok"
    return str(reply.content["stack"])


def test_a_cell_that_keeps_the_gil_says_in_which_line(kernel: Kernel) -> None:
    result = kernel.execute(f"def hanging():\n    pass\n{GIL_HELD}")
    kernel.wait_for_text(result, "no answer for")
    assert "line 5" in result.stderr
    assert result.stderr.startswith("\r[unstuck] ")
    assert "line 5" in stack(kernel)
    kernel.interrupt()
    assert kernel.finish(result).content["ename"] == "KeyboardInterrupt"


def test_a_thread_cell_that_keeps_the_gil_says_in_which_line(kernel: Kernel) -> None:
    result = kernel.execute(f"##thread\n{GIL_HELD}")
    kernel.wait_for_text(result, "no answer for")
    assert "of this cell" in result.stderr
    kernel.interrupt()
    assert "This cell, line" in "\n".join(kernel.finish(result).content["traceback"])


def test_a_cell_that_does_not_hang_says_nothing(kernel: Kernel) -> None:
    result = kernel.run_ok("import time\ntime.sleep(2.5)")
    assert result.stderr == ""


def test_stacks_show_all_threads_of_an_idle_and_a_busy_kernel(kernel: Kernel) -> None:
    assert "File " in stack(kernel)
    result = kernel.execute(
        "import threading\n"
        "def waiting(): release.wait(100)\n"
        "release = threading.Event()\n"
        "thread = threading.Thread(target=waiting)\n"
        "thread.start()\n"
        "print('begun')\n"
        "release.wait(100)"
    )
    kernel.wait_for_text(result, "begun")
    shown = stack(kernel)
    assert "in waiting" in shown
    assert "line 7" in shown
    kernel.interrupt()
    assert kernel.finish(result).status == "error"
    kernel.run_ok("release.set()\nthread.join(10)")


def test_a_stopped_worker_is_named_as_one_that_gives_no_stack(kernel: Kernel) -> None:
    process = worker(kernel)
    process.suspend()
    try:
        assert "no stack" in stack(kernel)
    finally:
        process.resume()
    assert kernel.run_ok("1 + 1").value == "2"
