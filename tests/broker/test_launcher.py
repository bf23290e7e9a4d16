"""A kernel whose launcher has died ends, whenever that was."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from e2e.processes import is_live
from e2e.spec import SOURCE_PATH

if TYPE_CHECKING:
    from pathlib import Path

WAIT_S = 30.0
LAUNCH = """
import os, subprocess, sys, time
environment = {**os.environ, "JPY_PARENT_PID": str(os.getpid())}
argv = [sys.executable, "-P", "-m", "unstuck_broker", "-f", sys.argv[1]]
kernel = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)
print(kernel.pid, flush=True)
time.sleep(float(sys.argv[2]))
os._exit(0)
"""


@pytest.mark.parametrize("seconds", [0.08, 0.15, 0.3, 2.0])
def test_a_kernel_ends_with_its_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setenv("PYTHONPATH", SOURCE_PATH)
    arguments = [sys.executable, "-c", LAUNCH, str(tmp_path / "kernel.json"), str(seconds)]
    launcher = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    kernel = psutil.Process(int(launcher.stdout.readline()))
    with launcher:
        assert launcher.wait(WAIT_S) == 0
    end = time.monotonic() + WAIT_S
    while is_live(kernel):
        assert time.monotonic() < end, "the kernel still runs"
        time.sleep(0.02)
