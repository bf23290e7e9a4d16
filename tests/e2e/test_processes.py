"""``##process`` cells in a running kernel: beside the queue, interrupted alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours
from kernel.commands import file_of, unstuck

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

pytestmark = [
    ours,
    pytest.mark.skipif(sys.platform != "linux", reason="##process needs Linux"),
]


def test_a_process_cell_runs_beside_a_cell_that_holds_the_gil(kernel: Kernel) -> None:
    kernel.run_ok("x = 20")
    beside = kernel.execute("##process\nprint('on')\nimport time\ntime.sleep(0.2)\ny = x + 1\ny")
    kernel.wait_for_text(beside, "on")
    kernel.run_ok("sum(range(10**7))")
    assert kernel.finish(beside).value == "21"
    assert kernel.evaluate("y") == "21"


def test_an_interrupt_names_one_process_cell_and_the_others_go_on(kernel: Kernel) -> None:
    code = "##process\nprint('on')\nimport time\nwhile True: time.sleep(0.02)"
    one, other = kernel.execute(code), kernel.execute(code)
    for cell in (one, other):
        kernel.wait_for_text(cell, "on")
    assert unstuck("interrupt", file_of(kernel), "--cell", one.msg_id).exit_code == 0
    assert kernel.finish(one).error["ename"] == "KeyboardInterrupt"
    assert not other.is_complete
    kernel.run_ok("1")
    kernel.interrupt()
    assert kernel.finish(other).error["ename"] == "KeyboardInterrupt"


def test_a_process_cell_that_hangs_is_killed_and_the_variables_stay(kernel: Kernel) -> None:
    kernel.run_ok("kept = 1")
    hung = kernel.execute(
        "##process\nimport ctypes\nm = ctypes.create_string_buffer(64); c = ctypes.PyDLL(None)\n"
        "print('on', flush=True)\nc.pthread_mutex_lock(m); c.pthread_mutex_lock(m)"
    )
    kernel.wait_for_text(hung, "on")
    kernel.interrupt()
    assert kernel.finish(hung).error["ename"] == "KeyboardInterrupt"
    assert kernel.evaluate("kept") == "1"


def test_a_timeout_ends_a_process_cell_alone(kernel: Kernel) -> None:
    kernel.run_ok("kept = 2")
    metadata = {"unstuck": {"run_mode": "process"}, "timeout": 2.0}
    cell = kernel.run("import time\ntime.sleep(60)", metadata=metadata)
    assert cell.content["status"] == "error"
    assert kernel.evaluate("kept") == "2"
