"""Limits that a user sets: memory, processes, time and output; the cell's error names the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.processes import worker
from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

pytestmark = ours

SETTINGS = (
    "memory_bytes=400000000",
    "processes=6",
    "cell_timeout_s=5",
    "output_bytes_per_cell=10000",
    "interrupt_hard_s=0.2",
    "interrupt_grace_s=0.5",
    "snapshots=off",
)
IN_C = "import itertools\nmax(itertools.repeat(1))"
IN_PYTHON = "while True: pass"


def test_memory_of_one_process_is_limited(kernel: Kernel) -> None:
    result = kernel.run("kept = b'x' * 1_000_000_000\nimport time\ntime.sleep(100)")
    assert result.content["ename"] == "MemoryError"
    assert "the process tree used " in result.content["evalue"]
    assert "the limit memory_bytes is 400 MB" in result.content["evalue"]
    assert kernel.run_ok("1 + 1").value == "2"


def test_memory_is_that_of_the_whole_tree(kernel: Kernel) -> None:
    child = "kept = b'x' * 300_000_000; import time; time.sleep(100)"
    result = kernel.run(
        "import subprocess, sys\n"
        f"children = [subprocess.Popen([sys.executable, '-c', {child!r}]) for _ in range(2)]\n"
        "children[0].wait()"
    )
    assert result.content["ename"] == "MemoryError"


def test_a_cell_within_the_limits_is_left_alone(kernel: Kernel) -> None:
    pid = worker(kernel).pid
    kernel.run_ok(
        "kept = b'x' * 100_000_000\n"
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '0.5'])\n"
        "child.wait()\n"
        "del kept"
    )
    assert worker(kernel).pid == pid


def test_processes_are_limited(kernel: Kernel) -> None:
    result = kernel.run(
        "import subprocess, time\n"
        "children = [subprocess.Popen(['sleep', '100']) for _ in range(10)]\n"
        "time.sleep(100)"
    )
    assert result.content["ename"] == "ProcessLimitExceeded"
    assert "the limit processes is 6" in result.content["evalue"]
    assert kernel.run_ok("1 + 1").value == "2"


@pytest.mark.parametrize("metadata", [{"timeout": 0.3}, {"tags": ["timeout=0.3"]}])
def test_a_cell_with_a_timeout_ends_in_an_error_and_keeps_the_variables(
    kernel: Kernel, metadata: dict[str, Any]
) -> None:
    kernel.run_ok("kept = 42")
    result = kernel.run(IN_PYTHON, metadata=metadata)
    assert result.content["ename"] == "TimeoutError"
    assert "its timeout of 0.3 s" in result.content["evalue"]
    assert result.error["ename"] == "TimeoutError"
    assert kernel.evaluate("kept") == "42"


def test_a_cell_that_hangs_in_c_is_killed_at_its_timeout(kernel: Kernel) -> None:
    result = kernel.run(IN_C, metadata={"timeout": 0.3})
    assert result.content["ename"] == "TimeoutError"
    assert "all variables were lost" in result.content["evalue"]
    assert kernel.run_ok("1 + 1").value == "2"


def test_the_setting_is_for_cells_that_name_no_timeout(kernel: Kernel) -> None:
    result = kernel.run(IN_PYTHON)
    assert result.content["ename"] == "TimeoutError"
    assert "its timeout of 5 s" in result.content["evalue"]


def test_the_shell_has_the_setting_under_the_name_of_the_reference(kernel: Kernel) -> None:
    kernel.run_ok("import time\nfrom unstuck import utils\nshell = get_ipython()")
    before = kernel.evaluate("shell.execute_request_timeout")
    kernel.run_ok("shell.execute_request_timeout = 0.3")
    assert kernel.evaluate("utils.get_execute_request_timeout()") == "0.3"
    result = kernel.run("time.sleep(1000)")
    assert result.content["evalue"] == "the cell did not end within its timeout of 0.3 s"
    for bad in ("-1", "'soon'", "float('nan')"):
        refused = kernel.run(f"shell.execute_request_timeout = {bad}")
        assert refused.content["ename"] == "ConfigError"
    kernel.run_ok(f"shell.execute_request_timeout = {before}")
    assert kernel.evaluate("shell.execute_request_timeout") == before


@pytest.mark.parametrize("code", ["print('x' * 99)", "import os\nos.write(1, b'x' * 99)"])
def test_output_beyond_its_limit_is_cut_with_a_note_that_says_how_much(
    kernel: Kernel, code: str
) -> None:
    result = kernel.run_ok(f"for _ in range(1000):\n    {code.replace(chr(10), ';')}")
    assert len(result.stdout) <= 10_000
    assert "bytes of this cell's output were cut" in result.stderr
    assert "the limit output_bytes_per_cell is 10,000" in result.stderr
    assert kernel.run_ok("print('whole')").stderr == ""
