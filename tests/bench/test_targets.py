"""The targets of speed and memory, as ratios to other kernels measured in the same run."""

from __future__ import annotations

import pytest

from bench.run import run


@pytest.mark.bench
def test_every_target_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    table, misses = run()
    with capsys.disabled():
        print(f"\n{table}")
    assert misses == []
