"""Kernelspecs for tests: which kernel is under test, and how it starts without being installed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unstuck.kernelspec import SpecOptions, make_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
SOURCE_PATH = os.pathsep.join(str(ROOT / folder) for folder in ("kernel", "broker", "worker"))
OURS = "unstuck-under-test"
KERNEL = os.environ.get("UNSTUCK_TEST_KERNEL", OURS)
"""The kernelspec under test; another installed one shows that the tests themselves are right."""

PYTHON = os.environ.get("UNSTUCK_TEST_PYTHON", sys.executable)
"""What runs our kernel; the tests themselves run in this Python."""
IS_INSTALLED = "UNSTUCK_TEST_INSTALLED" in os.environ
"""Set where ``PYTHON`` has our wheel: the source tree is then out of its sight."""

ours = pytest.mark.skipif(KERNEL != OURS, reason=f"{KERNEL} does not promise this")


def spec_for_tests(
    python: str = PYTHON,
    *,
    settings: Sequence[str] = (),
    is_installed: bool = IS_INSTALLED,
) -> dict[str, Any]:
    """Describe our kernel, run by ``python`` from the source tree or as it is installed there."""
    env = {} if is_installed else {"PYTHONPATH": SOURCE_PATH}
    options = SpecOptions(name=OURS, settings=settings, env=env)
    spec = make_spec(options)
    spec["argv"][0] = python
    return spec


def write_spec(folder: Path, name: str, spec: dict[str, Any]) -> str:
    """Write a kernelspec below a Jupyter data folder; give its name."""
    place = folder / "kernels" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "kernel.json").write_text(json.dumps(spec))
    return name
