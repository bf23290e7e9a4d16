"""Checkpoints in MB/s, beside dill and plain pickle, which check and sync nothing.

Run it by name: ``python -m pytest -m bench tests/bench/bench_checkpoint.py -s``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from plainshell import plain_shell
from unstuck_worker.transplant import file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell

pytestmark = pytest.mark.bench

ROUNDS = 3
SESSIONS = {
    "arrays, 400 MB": "import numpy\na, b = (numpy.random.rand(25_000_000) for _ in 'ab')",
    "a data frame, 100 MB": (
        "import numpy, pandas\n"
        "frame = pandas.DataFrame(numpy.random.rand(1_250_000, 10), columns=list('abcdefghij'))"
    ),
    "500,000 dicts": "rows = [{'number': i, 'text': str(i)} for i in range(500_000)]",
    "100,000 instances": (
        "class Point:\n    def __init__(self, x): self.x = x\n"
        "points = [Point(float(i)) for i in range(100_000)]"
    ),
    "1,000 small variables": "globals().update({f'v{i}': [i, str(i)] for i in range(1000)})",
}


def timed(call: Callable[[], object]) -> float:
    """Give the median time of a few calls, in seconds."""
    times: list[float] = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - start_s)
    return median(times)


def by_module(name: str, values: dict[str, Any], path: Path) -> tuple[float, float] | None:
    """Save and load by ``dump`` and ``load`` of a module; None where it refuses."""
    module = importlib.import_module(name)

    def save() -> None:
        with path.open("wb") as target:
            module.dump(values, target, protocol=pickle.HIGHEST_PROTOCOL)

    def load() -> None:
        with path.open("rb") as source:
            module.load(source)

    try:
        return timed(save), timed(load)
    except (pickle.PicklingError, AttributeError):
        return None


def ours(shell: InteractiveShell, path: Path) -> tuple[float, float]:
    return (
        timed(lambda: file.save(shell, path)),
        timed(lambda: file.load(shell, path)),
    )


@pytest.mark.parametrize("name", SESSIONS)
def test_save_and_load(name: str, tmp_path: Path) -> None:
    with plain_shell(tmp_path) as shell:
        untyped: Any = shell
        untyped.counter = 1
        sys.modules["__main__"].__dict__.update(vars(shell.user_module))
        assert shell.run_cell(SESSIONS[name]).success
        path = tmp_path / "x"
        found: dict[str, tuple[float, float] | None] = {"unstuck": ours(shell, path)}
        size_bytes = path.stat().st_size
        from unstuck_worker.transplant.session import variables_of

        values = variables_of(shell)
        modules = [key for key in values if key in sys.modules]
        for key in modules:
            del values[key]
        for other in ("dill", "pickle"):
            if importlib.util.find_spec(other) is not None:
                found[other] = by_module(other, values, path)
    sys.stdout.write(f"\n{name} ({size_bytes / 1e6:.0f} MB)\n")
    for way, times in found.items():
        text = "cannot" if times is None else rate(size_bytes, times)
        sys.stdout.write(f"  {way:8} {text}\n")


def rate(size_bytes: int, times: tuple[float, float]) -> str:
    save, load = (size_bytes / 1e6 / seconds for seconds in times)
    return f"save {save:7.0f} MB/s   load {load:7.0f} MB/s   ({times[0]:.3f} s, {times[1]:.3f} s)"
