"""``##process`` cells in a running kernel: beside the queue, interrupted alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours
from kernel.commands import file_of, unstuck

if TYPE_CHECKING:
    from pathlib import Path

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


IS_COPY = "'sec' + 'ret' in globals()"


def test_it_is_a_copy_where_a_copy_is_whole(fresh_kernel: Kernel) -> None:
    fresh_kernel.run_ok("import os\nsecret, big = 1, list(range(1000))")
    result = fresh_kernel.run_ok(f"##process\nprint({IS_COPY})\nmine = [big, secret]\nlen(mine)")
    assert result.stdout == "True\n"
    assert (result.value, result.content["execution_count"]) == ("2", 2)
    assert fresh_kernel.evaluate("(mine[0] == big, Out[2], In[2][:9])") == "(True, 2, '##process')"
    died = fresh_kernel.run("##process\nprint('said')\nos._exit(3)")
    assert died.content["ename"] == "ProcessDied"
    assert died.stdout == "said\n"


def test_a_copy_that_hangs_is_killed_and_leaves_no_process(fresh_kernel: Kernel) -> None:
    fresh_kernel.run_ok("secret = 1")
    before = len(fresh_kernel.tree)
    hung = fresh_kernel.execute(
        f"##process\nimport ctypes\nprint({IS_COPY})\nm = ctypes.create_string_buffer(64)\n"
        "c = ctypes.PyDLL(None)\nc.pthread_mutex_lock(m); c.pthread_mutex_lock(m)"
    )
    fresh_kernel.wait_for_text(hung, "True")
    fresh_kernel.interrupt()
    assert fresh_kernel.finish(hung).error["ename"] == "KeyboardInterrupt"
    fresh_kernel.wait(lambda: len(fresh_kernel.tree) <= before + 2, "end of the copy")
    fresh_kernel.run_ok("secret")


def test_a_copy_that_dies_says_how(fresh_kernel: Kernel) -> None:
    fresh_kernel.run_ok("secret = 1")
    for code, how in {
        "import ctypes; ctypes.string_at(0)": "signal 11 (SIGSEGV)",
        "import os; os._exit(7)": "exit code 7",
    }.items():
        died = fresh_kernel.run(f"##process\nprint({IS_COPY})\n{code}")
        assert died.stdout == "True\n"
        assert died.content["evalue"] == f"the process of this cell has ended: {how}"


def test_it_is_a_fresh_worker_where_something_would_go_on_twice(fresh_kernel: Kernel) -> None:
    fresh_kernel.run_ok(
        "import asyncio\nsecret = 1\ntask = asyncio.ensure_future(asyncio.sleep(60))"
    )
    assert fresh_kernel.run_ok(f"##process\n{IS_COPY}").value == "False"
    fresh_kernel.run_ok("task.cancel()")


def test_an_awaiting_cell_is_not_run_twice(fresh_kernel: Kernel, tmp_path: Path) -> None:
    log = tmp_path / "log"
    fresh_kernel.run_ok("import asyncio, os\nevent = asyncio.Event()")
    waiting = fresh_kernel.execute(
        f"print('waits')\ntry:\n    await event.wait()\nfinally:\n"
        f"    os.write(os.open({str(log)!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND), b'x')"
    )
    fresh_kernel.wait_for_text(waiting, "waits")
    assert fresh_kernel.run_ok("##process\n6 * 7").value == "42"
    fresh_kernel.run_ok("##task\nevent.set()")
    fresh_kernel.finish(waiting)
    assert log.read_bytes() == b"x"
