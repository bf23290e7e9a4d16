"""``unstuck interrupt``, ``restart`` and ``kill``: what they do, and how they fail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from e2e.spec import OURS
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

SLEEP = "import time; print('on'); time.sleep(60)"
LOOP = "##thread\nimport time; print('on')\nwhile True: time.sleep(0.02)"


# --- interrupt ------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_running_cell_and_names_it(kernel: Kernel) -> None:
    cell = kernel.execute(SLEEP)
    kernel.wait_for_text(cell, "on")
    result = unstuck("interrupt", file_of(kernel))
    assert result.exit_code == 0, result.output
    assert "Interrupted [" in result.output
    assert SLEEP in result.output
    assert kernel.finish(cell).error["ename"] == "KeyboardInterrupt"


def test_an_interrupt_can_aim_at_one_cell_by_the_beginning_of_its_id(kernel: Kernel) -> None:
    thread = kernel.execute(LOOP)
    main = kernel.execute(SLEEP)
    for cell in (thread, main):
        kernel.wait_for_text(cell, "on")
    result = unstuck("interrupt", file_of(kernel), "--cell", thread.msg_id)
    assert result.exit_code == 0, result.output
    assert kernel.finish(thread).error["ename"] == "KeyboardInterrupt"
    assert not main.is_complete
    kernel.interrupt()
    kernel.finish(main)


def test_a_cell_that_does_not_run_is_refused(kernel: Kernel) -> None:
    line = one_line(unstuck("interrupt", file_of(kernel), "--cell", "none"), REFUSED)
    assert "no such request runs" in line


def test_a_beginning_of_two_ids_is_refused(kernel: Kernel) -> None:
    cells = [kernel.execute(LOOP) for _ in range(2)]
    for cell in cells:
        kernel.wait_for_text(cell, "on")
    shared = Path(file_of(kernel)).name  # No id begins so: the session's does.
    assert "no such request" in one_line(
        unstuck("interrupt", file_of(kernel), "--cell", shared), REFUSED
    )
    beginning = cells[0].msg_id[:8]
    line = one_line(unstuck("interrupt", file_of(kernel), "--cell", beginning), REFUSED)
    assert "names 2 requests" in line
    kernel.interrupt()
    for cell in cells:
        kernel.finish(cell)


def test_an_interrupt_with_nothing_to_interrupt_says_so(kernel: Kernel) -> None:
    result = unstuck("interrupt", file_of(kernel))
    assert (result.exit_code, result.output.split(" ")[0]) == (0, "Nothing")


def test_a_cell_that_does_not_end_is_told_with_code_1(fresh_kernel: Kernel) -> None:
    cell = fresh_kernel.execute(HANG)
    wait_for(lambda: bool(record_of(fresh_kernel)["running"]), "running cell")
    line = one_line(unstuck("interrupt", file_of(fresh_kernel), "--deadline", "0.3"), FAILED)
    assert "still running after 0.3 s" in line
    fresh_kernel.wait_for_text(cell, "interrupt again")
    assert unstuck("interrupt", file_of(fresh_kernel)).exit_code == 0
    assert fresh_kernel.finish(cell).error["ename"] == "KeyboardInterrupt"


def test_another_kernel_takes_an_interrupt_too_but_not_for_one_cell(
    start_kernel: StartKernel,
) -> None:
    kernel = start_kernel("python3")
    cell = kernel.execute(SLEEP)
    kernel.wait_for_text(cell, "on")
    refused = one_line(unstuck("interrupt", file_of(kernel), "--cell", cell.msg_id), REFUSED)
    assert "cannot interrupt a single cell" in refused
    assert unstuck("interrupt", file_of(kernel)).exit_code == 0
    assert kernel.finish(cell).error["ename"] == "KeyboardInterrupt"


# --- restart --------------------------------------------------------------------------------------


def test_a_restart_keeps_the_kernel_and_loses_its_variables(kernel: Kernel) -> None:
    kernel.run_ok("x = 1")
    pid, worker = kernel.pid, worker_of(kernel)
    result = unstuck("restart", file_of(kernel))
    assert result.exit_code == 0, result.output
    record = record_of(kernel)
    assert kernel.pid == record["pid"] == pid
    assert record["worker_pid"] != worker
    assert f"its worker is {record['worker_pid']}" in result.output
    assert kernel.run("x").content["ename"] == "NameError"


def test_a_hung_cell_does_not_prevent_a_restart(fresh_kernel: Kernel) -> None:
    cell = fresh_kernel.execute(HANG)
    wait_for(lambda: bool(record_of(fresh_kernel)["running"]), "running cell")
    assert unstuck("restart", file_of(fresh_kernel)).exit_code == 0
    assert fresh_kernel.finish(cell).error["ename"] == "KernelRestarted"
    fresh_kernel.run_ok("1")


def test_a_restart_that_takes_longer_than_its_deadline_is_told_with_code_1(
    start_kernel: StartKernel,
) -> None:
    kernel = start_kernel(settings=["shutdown_grace_s=3"])
    kernel.run_ok("import atexit, time; atexit.register(time.sleep, 60)")
    line = one_line(unstuck("restart", file_of(kernel), "--deadline", "0.2"), FAILED)
    assert "no new worker after 0.2 s" in line
    kernel.run_ok("1")


def test_another_kernel_is_not_restarted(start_kernel: StartKernel) -> None:
    kernel = start_kernel("python3")
    kernel.run_ok("x = 1")
    assert "no unstuck kernel" in one_line(unstuck("restart", file_of(kernel)), REFUSED)
    assert kernel.evaluate("x") == "1"


# --- kill -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [OURS, "python3"])
@pytest.mark.parametrize("options", [(), ("--now",)])
def test_a_kernel_ends_with_all_that_it_started(
    start_kernel: StartKernel, name: str, options: tuple[str, ...]
) -> None:
    kernel = start_kernel(name)
    tree = kernel.tree
    result = unstuck("kill", file_of(kernel), *options)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Ended ")
    _, left = psutil.wait_procs(tree, timeout=10.0)
    assert left == []


def test_a_hung_kernel_ends_too(fresh_kernel: Kernel) -> None:
    fresh_kernel.execute(HANG)
    wait_for(lambda: bool(record_of(fresh_kernel)["running"]), "running cell")
    tree = fresh_kernel.tree
    assert unstuck("kill", file_of(fresh_kernel)).exit_code == 0
    _, left = psutil.wait_procs(tree, timeout=10.0)
    assert left == []


def test_a_kernel_that_does_not_answer_is_only_ended_by_force(fresh_kernel: Kernel) -> None:
    psutil.Process(fresh_kernel.pid).suspend()
    tree = fresh_kernel.tree
    line = one_line(unstuck("kill", file_of(fresh_kernel)), FAILED)
    assert "'unstuck kill --now' does not ask it" in line
    assert unstuck("kill", file_of(fresh_kernel), "--now").exit_code == 0
    _, left = psutil.wait_procs(tree, timeout=10.0)
    assert left == []


# --- naming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["stack", "interrupt", "restart", "kill"])
def test_a_kernel_that_does_not_run_is_refused(command: str) -> None:
    assert "no kernel 'no-such-kernel'" in one_line(unstuck(command, "no-such-kernel"), REFUSED)


@pytest.mark.parametrize("command", ["stack", "interrupt", "restart", "kill"])
def test_a_stale_connection_file_is_refused(
    fresh_kernel: Kernel, tmp_path: Path, command: str
) -> None:
    stale = tmp_path / "kernel-stale.json"
    stale.write_text(Path(file_of(fresh_kernel)).read_text())
    fresh_kernel.kill()
    assert f"{stale} is stale" in one_line(unstuck(command, stale), REFUSED)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert "is no connection file" in one_line(unstuck("stack", other), REFUSED)


def test_a_deadline_is_a_number_of_seconds() -> None:
    assert unstuck("restart", "x", "--deadline", "0").exit_code == 2
