"""Checkpoints of a running kernel: by its cells, from the command line, and over a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.spec import ours
from kernel.commands import FAILED, REFUSED, file_of, one_line, unstuck

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel
    from e2e.kernel_client import Kernel

pytestmark = ours


def test_a_session_moves_to_another_kernel(
    fresh_kernel: Kernel, start_kernel: StartKernel, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    fresh_kernel.run_ok("def f(): return x\nx = [1]\ny = {'x': x}")
    assert "Saved 3 variables" in fresh_kernel.run_ok(f"%checkpoint save {path}").stdout
    other = start_kernel()
    assert "Loaded 3 variables" in other.run_ok(f"%checkpoint load {path}").stdout
    assert other.evaluate("(f(), y['x'] is x)") == "([1], True)"


def test_the_command_saves_and_loads_the_variables_of_a_running_kernel(
    fresh_kernel: Kernel, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    fresh_kernel.run_ok("import threading\nx = [1]\nlock = threading.Lock()")
    saved = unstuck("checkpoint", "save", file_of(fresh_kernel), path)
    assert saved.exit_code == 0, saved.output
    assert "lock: cannot pickle '_thread.lock' object" in saved.output
    told = unstuck("checkpoint", "info", path)
    assert "holds threading, x" in told.output
    fresh_kernel.run_ok("del x")
    loaded = unstuck("checkpoint", "load", file_of(fresh_kernel), path)
    assert "Loaded 2 variables" in loaded.output
    assert fresh_kernel.evaluate("x") == "[1]"


def test_a_file_that_is_refused_is_told_in_one_line(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"rubbish")
    assert "no checkpoint" in one_line(unstuck("checkpoint", "info", path), REFUSED)
    line = one_line(unstuck("checkpoint", "load", file_of(kernel), path), FAILED)
    assert line.endswith("x.ckpt is refused: it is no checkpoint of unstuck")


def test_what_was_saved_is_there_after_a_reboot_and_gone_after_a_restart(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    first = start_kernel(settings=[f"autosave_file={path}", "autosave_every_s=1"])
    first.run_ok("x = 7")
    first.wait(path.exists, "checkpoint")
    first.kill()
    second = start_kernel(settings=[f"restore_file={path}"])
    result = second.run_ok("x")
    assert result.value == "7"
    assert "Loaded 1 variable" in result.stderr
    assert unstuck("restart", file_of(second)).exit_code == 0
    assert second.run("x").content["ename"] == "NameError"
