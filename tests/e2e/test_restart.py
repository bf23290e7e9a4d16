"""Restart and shutdown: at once, whatever runs, and nothing of the kernel is left."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from e2e.kernel_client import WAIT_S
from e2e.processes import GIL_HELD, awake, live, template, wait_until_gone, worker
from e2e.spec import ours

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ours

SHUTDOWN_S = 3.0
"""For what takes less than 0.5 s on an idle machine."""
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print('daemon', os.getpid())
        sys.stdout.flush()
        os.closerange(0, 3)
        time.sleep(1000)
    os._exit(0)
os.wait()
"""
CHILDREN = """
import multiprocessing, subprocess
for own_session in (False, True):
    print('child', subprocess.Popen(['sleep', '1000'], start_new_session=own_session).pid)
"""


def begin(kernel: Kernel, code: str) -> Result:
    """Start a cell that prints "begun" when it runs."""
    result = kernel.execute(code)
    kernel.wait_for_text(result, "begun")
    return result


def shut_down(kernel: Kernel) -> float:
    """Do what a frontend does: interrupt, ask, wait for the exit; give the seconds it took."""
    began_s = time.monotonic()
    kernel.close()
    return time.monotonic() - began_s


@pytest.mark.parametrize("code", [GIL_HELD, "print('begun')\nwhile True: pass", "print('begun')"])
def test_a_shutdown_takes_no_time_whatever_runs(start_kernel: StartKernel, code: str) -> None:
    kernel = start_kernel()
    begin(kernel, code)
    processes = live(kernel)
    assert shut_down(kernel) < SHUTDOWN_S
    wait_until_gone(processes)


LEAVING = """
import asyncio, atexit, pathlib, time
folder = pathlib.Path({folder!r})
@atexit.register
def leave():
    time.sleep(0.5)
    print('late')
    (folder / 'atexit').touch()
"""


@pytest.mark.parametrize("wait", ["time.sleep({})", "await asyncio.sleep({})"])
def test_exit_handlers_and_finally_blocks_run_at_a_shutdown(
    start_kernel: StartKernel, tmp_path: Path, wait: str
) -> None:
    kernel = start_kernel()
    begin(
        kernel,
        f"{LEAVING.format(folder=str(tmp_path))}"
        f"try:\n    print('begun')\n    {wait.format(1000)}\n"
        f"finally:\n    {wait.format(0.5)}\n    (folder / 'finally').touch()",
    )
    processes = live(kernel)
    assert shut_down(kernel) < SHUTDOWN_S
    wait_until_gone(processes)
    assert {"atexit", "finally"} <= {path.name for path in tmp_path.iterdir()}


def test_a_cell_that_goes_on_after_its_interrupt_is_interrupted_again_at_a_shutdown(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    kernel = start_kernel(settings=["shutdown_grace_s=3"])
    begin(
        kernel,
        f"{LEAVING.format(folder=str(tmp_path))}"
        "try:\n    print('begun')\n    time.sleep(1000)\nexcept KeyboardInterrupt:\n    pass\n"
        "try:\n    time.sleep(1000)\nfinally:\n    (folder / 'finally').touch()",
    )
    processes = live(kernel)
    assert shut_down(kernel) < SHUTDOWN_S
    wait_until_gone(processes)
    assert {"atexit", "finally"} <= {path.name for path in tmp_path.iterdir()}


def test_all_that_cells_have_started_is_gone_after_a_shutdown(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    started = start_processes(kernel)
    assert shut_down(kernel) < SHUTDOWN_S
    wait_until_gone(started)


def start_processes(kernel: Kernel) -> list[psutil.Process]:
    """Have a cell start children, one in its own session, and a daemon that nobody knows."""
    result = kernel.execute(CHILDREN + DAEMON)
    pids: list[str] = []

    def are_all_named() -> bool:
        pids[:] = re.findall(r"(?:child|daemon) (\d+)\n", result.stdout)
        return len(pids) == 3

    kernel.wait(are_all_named, "pids")
    kernel.finish(result)
    return [psutil.Process(int(pid)) for pid in pids]


@pytest.mark.parametrize("code", [GIL_HELD, "print('begun')"])
def test_the_worker_dies_with_its_broker_however_that_dies(
    start_kernel: StartKernel, code: str
) -> None:
    kernel = start_kernel()
    template(kernel)
    begin(kernel, code)
    processes = live(kernel)
    assert len(processes) >= 3
    os.kill(kernel.pid, signal.SIGKILL)
    wait_until_gone(processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_broker_ends_all(start_kernel: StartKernel, number: int) -> None:
    kernel = start_kernel()
    begin(kernel, GIL_HELD)
    processes = live(kernel)
    os.kill(kernel.pid, number)
    wait_until_gone(processes)


# --- in place -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["idle", "busy", "stuck", "magic"])
def test_a_restart_in_place_keeps_all_but_the_worker(kernel: Kernel, way: str) -> None:
    kernel.run_ok("kept = 42")
    forks = template(kernel)
    kernel.run_ok("kept = 42")
    started = start_processes(kernel)
    broker, old = kernel.pid, worker(kernel)
    running = None
    if way == "magic":
        kernel.run_ok("%restart")
    else:
        if way != "idle":
            code = GIL_HELD if way == "stuck" else "print('begun')\nwhile True: pass"
            running = begin(kernel, code)
        assert kernel.request("restart_request", channel="control").status == "ok"
    if running is not None:
        assert kernel.finish(running).content["ename"] == "KernelRestarted"
    assert kernel.run("kept").content["ename"] == "NameError"
    new = worker(kernel)
    assert new.pid != old.pid
    assert new.ppid() == broker == kernel.pid
    assert forks.is_running()
    wait_until_gone([old, *started])
    kernel.wait(
        lambda: len(awake(kernel)) == 4, "end of all but broker, worker, template and spare"
    )


def test_exit_handlers_run_at_a_restart(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "atexit"
    kernel.run_ok(f"import atexit, pathlib\natexit.register(pathlib.Path({str(path)!r}).touch)")
    kernel.request("restart_request", channel="control")
    kernel.run_ok("1")
    assert path.exists()


LEFT_OPEN = """
import asyncio, contextlib, json, pathlib, sys, types, weakref
folder = pathlib.Path({folder!r})
def note(name, folder=folder):
    (folder / name).touch()
class Noting:
    def __del__(self, note=note):
        note("dropped")
kept = Noting()
cyclic = Noting(); cyclic.itself = cyclic
file = open(folder / "variable.txt", "w"); file.write("x" * 10)
sys.modules["of_mine"] = types.ModuleType("of_mine")
sys.modules["of_mine"].file = open(folder / "module.txt", "w")
sys.modules["of_mine"].file.write("y" * 10)
def generate(note=note):
    try:
        yield
    finally:
        note("generator")
waiting = generate(); next(waiting)
async def wait(note=note, asyncio=asyncio):
    try:
        await asyncio.sleep(1000)
    finally:
        note("task")
task = asyncio.create_task(wait()); await asyncio.sleep(0)
weakref.finalize(Noting, note, "finalizer")
import threading
ending = threading.Event()
threading.Thread(target=lambda: (ending.wait(0.2), note("thread"))).start()
"""


@ours
def test_a_worker_that_ends_leaves_nothing_of_the_user_undone(
    kernel: Kernel, tmp_path: Path
) -> None:
    kernel.run_ok(LEFT_OPEN.format(folder=str(tmp_path)))
    kernel.request("restart_request", channel="control")
    kernel.run_ok("1")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {
        "variable.txt": "x" * 10,
        "module.txt": "y" * 10,
        **dict.fromkeys(("dropped", "generator", "task", "finalizer", "thread"), ""),
    }


def test_restarts_in_a_row_are_all_answered(kernel: Kernel) -> None:
    asked = [kernel.send("restart_request", channel="control") for _ in range(5)]
    for result in asked:
        assert kernel.finish(result).status == "ok"
    assert kernel.run_ok("1 + 1").value == "2"
    kernel.wait(lambda: len(awake(kernel)) <= 4, "end of the old workers", deadline_s=WAIT_S)
