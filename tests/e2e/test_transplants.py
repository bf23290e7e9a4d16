"""Sessions that a copy cannot go on with are carried over into a fresh worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.snapshots import ON_LINUX, account, wait_for_snapshot

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

pytestmark = ON_LINUX


def test_a_session_whose_libraries_do_not_survive_a_fork_is_carried_over(
    fresh_kernel: Kernel,
) -> None:
    pytest.importorskip("polars")
    kernel = fresh_kernel
    kernel.run_ok(
        "import polars as pl, sqlite3\n"
        "frame = pl.DataFrame({'a': range(1000)})\n"
        "same = frame\n"
        "total = frame.filter(pl.col('a') > 10).sum()['a'][0]\n"
        "base = sqlite3.connect(':memory:')\n"
        "def double(number): return number * 2"
    )
    wait_for_snapshot(kernel)
    result = kernel.run("frame = None; import os; os.abort()")
    told = account(result)
    assert told["way"] == "transplant"
    assert [name for name, _ in told["failed"]] == ["base"]
    assert "Not taken over: base (cannot pickle" in result.stderr
    check = "print(frame.filter(pl.col('a') > 10).sum()['a'][0] == total, same is frame, double(4))"
    assert kernel.run_ok(check).stdout == "True True 8\n"
