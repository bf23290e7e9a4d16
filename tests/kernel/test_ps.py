"""``unstuck ps``: the state of each kernel, what it runs, and what it costs."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.spec import SOURCE_PATH
from kernel.commands import HANG, file_of, record_of, unstuck, wait_for, worker_of
from unstuck.command.ps import duration

if TYPE_CHECKING:
    from conftest import StartKernel
    from e2e.kernel_client import Kernel

BUSY = "# nothing yet\nimport time; print('on'); time.sleep(60)"


def test_an_idle_kernel_is_shown_with_its_processes_and_memory(kernel: Kernel) -> None:
    worker_of(kernel)
    record = record_of(kernel)
    assert record["state"] == "idle"
    assert record["implementation"] == "unstuck"
    assert record["running"] == []
    assert record["pid"] == kernel.pid
    assert record["worker_pid"] in [process.pid for process in kernel.tree[1:]]
    assert record["memory_bytes"] > 10_000_000
    assert record["cpu_percent"] >= 0


def test_a_running_cell_is_shown_with_its_first_line_and_its_time(kernel: Kernel) -> None:
    cell = kernel.execute(BUSY)
    waiting = kernel.execute("1")
    kernel.wait_for_text(cell, "on")
    first = record_of(kernel)
    [running] = first["running"]
    assert first["state"] == "busy"
    assert first["waiting"] == 1
    assert running["msg_id"] == cell.msg_id
    assert running["code"] == "# nothing yet"
    assert running["execution_count"] == cell.of("execute_input")[0]["content"]["execution_count"]
    [later] = record_of(kernel)["running"]
    assert later["seconds"] > running["seconds"] > 0
    kernel.interrupt()
    kernel.finish(cell)
    kernel.finish(waiting)
    assert record_of(kernel)["state"] == "idle"


def test_the_table_shows_the_cell_and_replaces_what_would_move_the_cursor(kernel: Kernel) -> None:
    cell = kernel.execute("x = '[bold]\x1b[2J'; print('on'); import time; time.sleep(60)")
    kernel.wait_for_text(cell, "on")
    result = unstuck("ps", "--once")
    assert result.exit_code == 0, result.output
    [line] = [line for line in result.output.splitlines() if f" {kernel.pid}" in line]
    assert Path(file_of(kernel)).name[:8] in line
    assert " busy " in line
    assert "\x1b" not in result.output
    kernel.interrupt()
    kernel.finish(cell)


def test_a_worker_that_holds_the_gil_is_hung_and_the_table_says_so(fresh_kernel: Kernel) -> None:
    cell = fresh_kernel.execute(HANG)
    wait_for(lambda: record_of(fresh_kernel)["state"] == "hung", "hang")
    record = record_of(fresh_kernel)
    assert record["hung_s"] > 0
    assert record["running"][0]["msg_id"] == cell.msg_id
    assert unstuck("restart", file_of(fresh_kernel)).exit_code == 0
    assert record_of(fresh_kernel)["state"] == "idle"


def test_a_kernel_that_says_nothing_is_named_and_does_not_hold_up_the_table(
    fresh_kernel: Kernel,
) -> None:
    os.kill(fresh_kernel.pid, signal.SIGSTOP)
    try:
        record = record_of(fresh_kernel, "--deadline", "0.3")
    finally:
        os.kill(fresh_kernel.pid, signal.SIGCONT)
    assert record["state"] == "no answer"
    assert record["pid"] == fresh_kernel.pid


def test_a_stale_connection_file_is_shown_as_dead_when_it_is_asked_for(
    fresh_kernel: Kernel, private_folders: Path
) -> None:
    left = private_folders / "runtime" / "kernel-left-behind.json"
    left.write_text(Path(file_of(fresh_kernel)).read_text())
    fresh_kernel.kill()
    try:
        shown = [json.loads(unstuck("ps", "--json", *more).output) for more in ([], ["--all"])]
    finally:
        left.unlink()
    states = [[r["state"] for r in records if r["kernel_id"] == "left-behind"] for records in shown]
    assert states == [[], ["dead"]]


def test_the_notebook_is_read_from_the_connection_file_where_no_server_tells_it(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    kernel = start_kernel(env={"JPY_SESSION_NAME": str(tmp_path / "deep" / "analysis.ipynb")})
    assert record_of(kernel)["notebook"] == str(tmp_path / "deep" / "analysis.ipynb")
    assert "analysis.ipynb" in unstuck("ps").output


def test_another_kernel_is_shown_as_far_as_it_tells(start_kernel: StartKernel) -> None:
    record = record_of(start_kernel("python3"))
    assert (record["state"], record["implementation"]) == ("alive", "ipython")
    assert record["memory_bytes"] > 10_000_000
    assert record["worker_pid"] is None


def test_on_a_terminal_the_table_is_renewed_until_ctrl_c(kernel: Kernel) -> None:
    worker_of(kernel)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": SOURCE_PATH, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "unstuck", "ps", file_of(kernel)],
        stdin=theirs,
        stdout=theirs,
        env=environment,
    )
    os.close(theirs)
    try:
        seen = _read_until(ours, lambda text: text.count(f" {kernel.pid}") >= 2)
        assert "idle" in seen
        process.send_signal(signal.SIGINT)
        _read_until(ours, lambda _: process.poll() is not None)
        assert process.wait(1.0) == 0
    finally:
        process.kill()
        process.wait(5.0)
        os.close(ours)


def _read_until(fd: int, fact: object) -> str:
    """Read a terminal until ``fact`` of its text holds."""
    assert callable(fact)
    text, end_s = "", time.monotonic() + 20.0
    while not fact(text):
        assert time.monotonic() < end_s, text
        if select.select([fd], [], [], 0.1)[0]:
            try:
                text += os.read(fd, 1 << 16).decode(errors="replace")
            except OSError:  # Linux: the other end is closed.
                time.sleep(0.01)
    return text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (0.04, "0.0 s"), (59.94, "59.9 s"), (187, "3:07"), (7201, "2:00:01")],
)
def test_a_time_is_written_as_a_person_reads_it(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown
