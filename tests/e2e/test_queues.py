"""Cells that are sent at once: each runs exactly once or not at all, and its reply says which.

A file is the witness: cells append their number to it, whatever becomes of their process.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ours

CELLS = 40
ROUNDS = 12
SEED = int(os.environ.get("UNSTUCK_TEST_QUEUES_SEED", "5"))
ANSWERED_S = 60.0
WITNESS = """
import os, time
def note(number, pause=0.0):
    file = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b'%d\\n' % number)
    os.close(file)
    if pause: time.sleep(pause)
    return number
"""
"""A module: a worker that begins anew, or from a snapshot, finds it where it was."""


def write_witness(folder: Path) -> Path:
    """Write the module; give the file that its function appends to."""
    path = folder / "notes"
    (folder / "witness.py").write_text(WITNESS.format(path=str(path)))
    return path


def cell(number: int, pause: float = 0.0) -> str:
    """Give a cell that notes its number."""
    return f"import witness; witness.note({number}, {pause})"


def witnessed(path: Path) -> Counter[int]:
    """Count how often each cell has run."""
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def worker(kernel: Kernel) -> psutil.Process:
    """Find the process that runs cells now."""
    return psutil.Process(int(kernel.evaluate("__import__('os').getpid()")))


def check(results: list[Result], path: Path, first: int = 0) -> None:
    """Compare what the replies say with what has happened."""
    ran = witnessed(path)
    for number, result in enumerate(results, first):
        times = ran[number]
        if result.status == "ok":
            assert times == 1, f"cell {number} is ok and ran {times} times"
            (value,) = result.of("execute_result")
            assert value["content"]["data"]["text/plain"] == str(number)
        elif result.status == "aborted":
            assert times == 0, f"cell {number} was aborted and ran"
        else:
            assert times <= 1, f"cell {number} ran {times} times"


def test_each_output_is_under_its_own_cell(kernel: Kernel) -> None:
    cells = [
        f"import os\nprint('print {n}')\n_ = os.write(1, b'c {n}\\n')\n{n}" for n in range(CELLS)
    ]
    results = [kernel.execute(code) for code in cells]
    for number, result in enumerate(results):
        kernel.finish(result)
        assert result.stdout == f"print {number}\nc {number}\n"
        (value,) = result.of("execute_result")
        assert value["content"]["data"]["text/plain"] == str(number)
    counts = [result.content["execution_count"] for result in results]
    assert counts == list(range(counts[0], counts[0] + CELLS))
    shown = [result.of("execute_input")[0]["content"]["execution_count"] for result in results]
    assert shown == counts


def test_what_programs_write_is_under_the_cell_that_started_them(kernel: Kernel) -> None:
    results = [kernel.execute(f"!echo {number}") for number in range(10)]
    for number, result in enumerate(results):
        assert kernel.finish(result).stdout.split() == [str(number)]


@pytest.mark.parametrize("stop_on_error", [True, False])
def test_an_error_in_the_middle_stops_the_queue_or_does_not(
    start_kernel: StartKernel, tmp_path: Path, *, stop_on_error: bool
) -> None:
    path = write_witness(tmp_path)
    kernel = start_kernel(cwd=tmp_path)
    codes = [cell(number) + ("; 1 / 0" if number == 7 else "") for number in range(15)]
    results = [kernel.execute(code, stop_on_error=stop_on_error) for code in codes]
    for result in results:
        kernel.finish(result)
    behind = "aborted" if stop_on_error else "ok"
    assert [r.status for r in results] == ["ok"] * 7 + ["error"] + [behind] * 7
    check(results, path)


@pytest.mark.parametrize("policy", ["auto", "off"])
def test_each_cell_runs_once_or_not_at_all_whatever_happens(
    start_kernel: StartKernel, tmp_path: Path, policy: str
) -> None:
    path = write_witness(tmp_path)
    kernel = start_kernel(settings=[f"snapshots={policy}"], cwd=tmp_path)
    dice = random.Random(SEED)
    for first in range(0, ROUNDS * CELLS, CELLS):
        process = worker(kernel)
        pause = dice.choice([0.0, 0.001, 0.004])
        stops = dice.random() < 0.5
        results = [
            kernel.execute(cell(number, pause), stop_on_error=stops)
            for number in range(first, first + CELLS)
        ]
        struck = results[dice.randrange(CELLS)]
        kernel.wait(partial(bool, struck.iopub), "the cell's turn", deadline_s=ANSWERED_S)
        match dice.choice(["interrupt", "kill", "restart", "named interrupt"]):
            case "interrupt":
                kernel.request("interrupt_request", channel="control")
            case "named interrupt":
                content = {"msg_id": struck.msg_id}
                kernel.request("interrupt_request", content, channel="control")
            case "kill":
                process.send_signal(signal.SIGKILL)
                process.wait(ANSWERED_S)
            case _:
                kernel.request("restart_request", channel="control")
        for result in results:
            kernel.finish(result, deadline_s=ANSWERED_S)
        check(results, path, first)


def test_a_cell_whose_output_a_widget_takes_is_followed_once(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    path = write_witness(tmp_path)
    kernel = start_kernel(cwd=tmp_path)
    kernel.run_ok("import ipywidgets; out = ipywidgets.Output()")
    captured = kernel.execute("with out: print('captured')")
    results = [kernel.execute(cell(number)) for number in range(5)]
    kernel.finish(captured)
    for result in results:
        kernel.finish(result)
    check(results, path)
    assert set(witnessed(path)) == set(range(5))
