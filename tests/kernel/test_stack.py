"""``unstuck stack``: where a kernel is, whatever it does."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from kernel.commands import (
    FAILED,
    HANG,
    REFUSED,
    file_of,
    one_line,
    record_of,
    unstuck,
    wait_for,
    worker_of,
)

if TYPE_CHECKING:
    from conftest import StartKernel
    from e2e.kernel_client import Kernel


def test_the_stacks_of_all_threads_are_shown_while_a_cell_runs(kernel: Kernel) -> None:
    cell = kernel.execute(
        "import threading, time\n"
        "def beside(): time.sleep(60)\n"
        "def before(): print('on'); time.sleep(60)\n"
        "threading.Thread(target=beside, daemon=True).start()\n"
        "before()"
    )
    kernel.wait_for_text(cell, "on")
    result = unstuck("stack", file_of(kernel))
    assert result.exit_code == 0, result.output
    assert "in before" in result.output
    assert "in beside" in result.output
    kernel.interrupt()
    kernel.finish(cell)


def test_a_stack_is_there_with_the_gil_held(fresh_kernel: Kernel) -> None:
    fresh_kernel.execute(f"def held(): {HANG}\nheld()")
    wait_for(lambda: bool(record_of(fresh_kernel)["running"]), "running cell")
    wait_for(lambda: "in held" in unstuck("stack", file_of(fresh_kernel)).output, "line of held")


def test_a_worker_that_is_stopped_gives_no_stack_and_the_answer_says_so(
    fresh_kernel: Kernel,
) -> None:
    worker = worker_of(fresh_kernel)
    os.kill(worker, signal.SIGSTOP)
    try:
        result = unstuck("stack", file_of(fresh_kernel))
    finally:
        os.kill(worker, signal.SIGCONT)
    assert result.exit_code == 0
    assert "gave no stack" in result.output


def test_another_kernel_is_refused_with_what_can_be_done_instead(start_kernel: StartKernel) -> None:
    line = one_line(unstuck("stack", file_of(start_kernel("python3"))), REFUSED)
    assert "no unstuck kernel but ipython" in line
    assert "py-spy" in line


def test_a_broker_that_does_not_answer_fails_within_its_deadline(fresh_kernel: Kernel) -> None:
    os.kill(fresh_kernel.pid, signal.SIGSTOP)
    start_s = time.monotonic()
    try:
        line = one_line(unstuck("stack", file_of(fresh_kernel)), FAILED)
    finally:
        os.kill(fresh_kernel.pid, signal.SIGCONT)
    assert time.monotonic() - start_s < 15.0
    assert "no answer to kernel_info_request" in line
    assert f"process {fresh_kernel.pid}" in line
