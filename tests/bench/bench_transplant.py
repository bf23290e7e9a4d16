"""From a kill to the next reply where variables move to a fresh worker, beside the imports alone.

Run it by name: ``python -m pytest -m bench tests/bench/bench_transplant.py -s``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from conftest import StartKernel
    from e2e.kernel_client import Kernel

pytestmark = [pytest.mark.bench, ours]

IMPORTS = "import numpy as np, polars as pl, torch"
SESSION = """
x = np.random.rand(5_000_000)
model = torch.nn.Linear(2000, 2000)
frame = pl.DataFrame({'a': range(1_000_000)})
rows = [{'i': i} for i in range(200_000)]
both = [x, rows]
frame.filter(pl.col('a') > 5).height
"""
LONG_S = 300.0
ROUNDS = 3


def has_snapshot(kernel: Kernel) -> bool:
    return "(now)  transplant" in kernel.run_ok("%snapshots").stdout


def test_a_session_of_100_mb_with_polars_and_torch(start_kernel: StartKernel) -> None:
    pytest.importorskip("polars")
    pytest.importorskip("torch")
    kernel = start_kernel()
    kernel.run_ok(IMPORTS, deadline_s=LONG_S)
    kernel.run_ok(SESSION, deadline_s=LONG_S)
    for _ in range(ROUNDS):
        kernel.wait(lambda: has_snapshot(kernel), "snapshot")
        start_s = time.perf_counter()
        kernel.run("import os; os.kill(os.getpid(), 9)", deadline_s=LONG_S)
        kernel.run_ok("1", deadline_s=LONG_S)
        spent_s = time.perf_counter() - start_s
        assert kernel.evaluate("(both[0] is x, both[1] is rows)") == "(True, True)"
        kernel.run_ok("frame.filter(pl.col('a') > 5).height", deadline_s=LONG_S)
        start_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=LONG_S)
        imports_s = time.perf_counter() - start_s
        sys.stdout.write(
            f"\nkill to next reply {spent_s:.2f} s, imports alone {imports_s:.2f} s:"
            f" {spent_s / imports_s:.2f}\n"
        )
