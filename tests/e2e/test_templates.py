"""The first worker's template: there for whoever may restart, and never in anybody's way."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from e2e.processes import (
    awake,
    beside,
    forks_at_rest,
    live,
    ready_worker,
    wait_until_gone,
    worker,
)
from e2e.spec import ours

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel
    from e2e.kernel_client import Kernel

pytestmark = ours

WAITING = """
import os, pathlib, time
folder = pathlib.Path({folder!r})
(folder / "pid.new").write_text(str(os.getpid()))
(folder / "pid.new").rename(folder / "pid")
while not (folder / "go").exists():
    time.sleep(0.005)
"""
"""Code that holds up a worker's start until the test has made the file ``go``."""


class Held:
    """A kernel whose worker is held up while it starts."""

    def __init__(self, start_kernel: StartKernel, folder: Path, place: str) -> None:
        """Start it; ``place`` is the file of the profile that its worker waits in."""
        self._folder = folder
        file = folder / "profile_default" / place
        file.parent.mkdir(parents=True)
        file.write_text(WAITING.format(folder=str(folder)))
        self.kernel = start_kernel(env={"IPYTHONDIR": str(folder)})
        self.kernel.wait((folder / "pid").exists, "worker")
        self.worker = psutil.Process(int((folder / "pid").read_text()))

    def let_go(self) -> None:
        """Let the worker go on."""
        (self._folder / "go").touch()

    def send_cell(self) -> None:
        """Send a cell, which waits for the worker, and see that it has arrived."""
        kernel = self.kernel
        self.cell = kernel.execute("")
        kernel.wait(
            lambda: kernel.request("state_request", channel="control").content["waiting"] == 1,
            "waiting cell",
        )


BEFORE_THE_TEMPLATE = "ipython_config.py"
BEHIND_THE_TEMPLATE = "startup/00-waiting.py"


def restart(kernel: Kernel) -> psutil.Process:
    """Restart in place; give the new worker."""
    kernel.request("restart_request", channel="control")
    return worker(kernel)


# --- whether there is one -------------------------------------------------------------------------


def test_the_first_restart_after_a_rest_takes_the_spare(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    template, spare = forks_at_rest(kernel)
    first = ready_worker(kernel)
    assert {one.ppid() for one in (template, spare, first)} == {kernel.pid}
    assert "unstuck_broker" not in " ".join(template.cmdline())
    kernel.run_ok("here = True")
    assert restart(kernel) == spare
    assert kernel.evaluate("'here' in globals()") == "False"
    wait_until_gone([first])
    assert template in beside(kernel, spare, 2)


def test_a_crash_after_a_rest_takes_the_spare(start_kernel: StartKernel) -> None:
    kernel = start_kernel(settings=["snapshots=off"])
    _, spare = forks_at_rest(kernel)
    kernel.run("__import__('os')._exit(1)")
    assert worker(kernel) == spare


def test_a_cell_that_is_there_at_once_leaves_no_template(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    held = Held(start_kernel, tmp_path, BEFORE_THE_TEMPLATE)
    held.send_cell()
    held.let_go()
    held.kernel.finish(held.cell)
    assert beside(held.kernel, held.worker, 0) == []
    assert restart(held.kernel) != held.worker
    beside(held.kernel, worker(held.kernel), 2)


def test_a_cell_that_comes_a_little_later_ends_the_template(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    held = Held(start_kernel, tmp_path, BEHIND_THE_TEMPLATE)
    (template,) = beside(held.kernel, held.worker, 1)
    held.send_cell()
    wait_until_gone([template])  # Though the worker does not go on.
    held.let_go()
    held.kernel.finish(held.cell)
    assert worker(held.kernel) == held.worker
    assert {one.pid for one in awake(held.kernel)} == {held.kernel.pid, held.worker.pid}


# --- what it is made of ---------------------------------------------------------------------------


def test_a_changed_configuration_starts_from_scratch(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    config = tmp_path / "profile_default" / "ipython_config.py"
    config.parent.mkdir()
    line = "c.InteractiveShellApp.exec_lines = ['configured = {}']\n"
    config.write_text(line.format(1))
    kernel = start_kernel(env={"IPYTHONDIR": str(tmp_path)})
    forks = forks_at_rest(kernel)
    assert kernel.evaluate("configured") == "1"
    config.write_text(line.format(2))
    assert restart(kernel) not in forks
    assert kernel.evaluate("configured") == "2"
    wait_until_gone(forks)


def test_changed_settings_start_from_scratch(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    forks = forks_at_rest(kernel)
    kernel.run_ok("%unstuck interrupt_policy never")
    assert restart(kernel) not in forks
    wait_until_gone(forks)


def test_start_up_files_run_in_each_worker(start_kernel: StartKernel, tmp_path: Path) -> None:
    folder = tmp_path / "profile_default" / "startup"
    folder.mkdir(parents=True)
    (folder / "00-pid.py").write_text("import os; started_in = os.getpid()")
    kernel = start_kernel(env={"IPYTHONDIR": str(tmp_path)})
    _, spare = forks_at_rest(kernel)
    assert kernel.evaluate("started_in") == str(ready_worker(kernel).pid)
    assert restart(kernel) == spare
    assert kernel.evaluate("started_in") == str(spare.pid)


def test_what_the_first_worker_restores_is_not_in_the_next(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    start_kernel().run_ok(f"x = 7\n%checkpoint save {path}")
    kernel = start_kernel(settings=[f"restore_file={path}"])
    _, spare = forks_at_rest(kernel)
    assert kernel.evaluate("x") == "7"
    assert restart(kernel) == spare
    assert kernel.run("x").content["ename"] == "NameError"


def test_it_is_no_part_of_the_worker(start_kernel: StartKernel) -> None:
    kernel = start_kernel(settings=["processes=1", "snapshots=off"])
    forks = forks_at_rest(kernel)
    usage = kernel.request("usage_request", channel="control").content
    assert usage["pid"] == kernel.pid
    kernel.run_ok("import time; time.sleep(0.3)")  # The limit is looked at each 0.1 s.
    assert kernel.request("state_request", channel="control").content["restarts"] == 0
    kernel.run("import subprocess, time; subprocess.Popen(['sleep', '100']); time.sleep(100)")
    assert worker(kernel) == forks[1]
    assert forks[0].is_running()


# --- its end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["shutdown", "kill", "terminate"])
def test_nothing_is_left_of_a_kernel_that_rests(start_kernel: StartKernel, way: str) -> None:
    kernel = start_kernel()
    forks_at_rest(kernel)
    end(kernel, way)


@pytest.mark.parametrize("way", ["shutdown", "kill", "terminate"])
def test_nothing_is_left_of_a_kernel_that_is_starting(
    start_kernel: StartKernel, tmp_path: Path, way: str
) -> None:
    held = Held(start_kernel, tmp_path, BEHIND_THE_TEMPLATE)
    beside(held.kernel, held.worker, 1)
    end(held.kernel, way)


def end(kernel: Kernel, way: str) -> None:
    """End a kernel, and see that nothing of it is left."""
    processes = live(kernel)
    assert len(processes) >= 3
    match way:
        case "shutdown":
            kernel.close()
        case "kill":
            os.kill(kernel.pid, signal.SIGKILL)
        case _:
            os.kill(kernel.pid, signal.SIGTERM)
    wait_until_gone(processes)
