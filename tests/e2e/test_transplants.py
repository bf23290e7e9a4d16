"""Sessions that a copy cannot go on with are carried over into a fresh worker."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from e2e.snapshots import ON_LINUX, account, wait_for_snapshot

if TYPE_CHECKING:
    from pathlib import Path

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


DONOR = "import polars as pl; pl.DataFrame({'a': [1, 2]}).filter(pl.col('a') > 1)"
"""Makes a session whose copies are donors."""


def test_what_belongs_to_a_session_is_carried_over_with_its_variables(
    fresh_kernel: Kernel, tmp_path: Path
) -> None:
    for library in ("polars", "numpy", "matplotlib"):
        pytest.importorskip(library)
    kernel = fresh_kernel
    kernel.run_ok(DONOR)
    kernel.run_ok(
        "import json as j, os, random, numpy as np, matplotlib.pyplot as plt\n"
        "class Account:\n    def __init__(self): self.sum = 1\n"
        "account, twin = Account(), random.Random()\n"
        "%config InlineBackend.close_figures = False\n"
        "random.seed(7); np.random.seed(7); figure, axes = plt.subplots()\n"
        "_ = plt.plot([1, 2]); plt.ioff()\n"
        f"os.environ['MARK'] = 'here'; os.chdir({str(tmp_path)!r})"
    )
    last = kernel.run_ok("'the last value'").content["execution_count"]
    drawn = kernel.run_ok(
        "state = random.getstate(), np.random.get_state()\n"
        "print(random.random(), np.random.rand())\n"
        "random.setstate(state[0]); np.random.set_state(state[1])"
    ).stdout
    wait_for_snapshot(kernel)
    told = account(kernel.run("account = None; import os; os.abort()"))
    assert (told["way"], told["failed"]) == ("transplant", [])
    facts = kernel.run_ok(
        f"print(j.dumps([_{last}, Out[{last}], In[{last}], account.sum,"
        " isinstance(account, Account), plt.gcf() is figure, len(axes.lines),"
        " plt.isinteractive(), os.environ['MARK'], os.getcwd()]))"
    )
    value = "the last value"
    assert json.loads(facts.stdout) == [
        value, value, repr(value), 1, True, True, 1, False, "here", str(tmp_path),
    ]  # fmt: skip
    assert kernel.run_ok("print(random.random(), np.random.rand())").stdout == drawn
    lines = kernel.run_ok("%history -n").stdout
    assert lines.count(repr(value)) == 1


def test_how_far_it_is_is_shown_when_it_takes_longer_than_a_second(fresh_kernel: Kernel) -> None:
    pytest.importorskip("polars")
    kernel = fresh_kernel
    kernel.run_ok(DONOR)
    kernel.run_ok(
        "class Slow:\n    def __reduce__(self):\n        import time; time.sleep(0.4)\n"
        "        return (Slow, ())\n"
        "one, two, three, four, five = (Slow() for _ in range(5))"
    )
    wait_for_snapshot(kernel)
    result = kernel.run("import os; os.abort()")
    assert re.search(r"\r\[unstuck\] taking variables over: \d of \d", result.stderr)
    assert account(result)["failed"] == []


def test_a_process_cell_is_a_fresh_worker_where_a_copy_would_be_a_donor(
    fresh_kernel: Kernel,
) -> None:
    pytest.importorskip("polars")
    kernel = fresh_kernel
    kernel.run_ok(DONOR)
    kernel.run_ok("secret = 1; frame = pl.DataFrame({'a': range(9)})")
    result = kernel.run_ok(
        "##process\nprint('sec' + 'ret' in globals())\nhigh = frame.filter(pl.col('a') > 5).height"
    )
    assert result.stdout == "False\n"
    assert kernel.evaluate("high") == "3"
