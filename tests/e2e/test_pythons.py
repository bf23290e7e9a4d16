"""The wheel on other CPythons: a part of these tests runs against a kernel of each version."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from e2e.environments import find_python, python_with
from e2e.spec import ROOT, ours

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = ours

RUN_S = 240.0
TESTS = ("test_kernel_tests", "test_messages", "test_outputs", "test_subshells", "test_run_modes")


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_kernel_works_on_cpython(wheel: Path, version: str) -> None:
    with python_with(wheel, find_python(version), "trio") as python:
        files = [str(ROOT / "tests" / "e2e" / f"{name}.py") for name in TESTS]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
            cwd=ROOT,
            env={**os.environ, "UNSTUCK_TEST_PYTHON": str(python), "UNSTUCK_TEST_INSTALLED": "1"},
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:]
