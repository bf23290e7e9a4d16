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

ours = pytest.mark.skipif(KERNEL != OURS, reason=f"{KERNEL} does not promise this")


def spec_for_tests(
    python: str = sys.executable,
    *,
    settings: Sequence[str] = (),
    python_path: str = SOURCE_PATH,
) -> dict[str, Any]:
    """Describe our kernel, run by ``python`` from the source tree or from ``python_path``."""
    options = SpecOptions(name=OURS, settings=settings, env={"PYTHONPATH": python_path})
    spec = make_spec(options)
    spec["argv"][0] = python
    return spec


def write_spec(folder: Path, name: str, spec: dict[str, Any]) -> str:
    """Write a kernelspec below a Jupyter data folder; give its name."""
    place = folder / "kernels" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "kernel.json").write_text(json.dumps(spec))
    return name
