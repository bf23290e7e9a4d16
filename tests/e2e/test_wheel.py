"""A built wheel in a clean environment, away from the checkout: command, kernel, notebook."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import unstuck
from e2e.environments import call, clean_environment, python_with
from e2e.kernel_client import Kernel
from e2e.notebooks import load, save
from e2e.spec import PYTHON, ours

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = ours


@pytest.fixture(scope="module")
def clean_python(wheel: Path) -> Iterator[Path]:
    """Install the wheel into an environment that has what the wheel needs and nothing else."""
    with python_with(wheel, Path(PYTHON)) as python:
        yield python


def test_the_wheel_holds_our_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        *("unstuck", "unstuck_broker", "unstuck_worker")
    }
    for package in ("unstuck", "unstuck_broker", "unstuck_worker"):
        assert f"{package}/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]


def test_the_command_tells_its_version(clean_python: Path, tmp_path: Path) -> None:
    command = clean_python.with_name("unstuck")
    assert unstuck.__version__ in call(command, "version", cwd=tmp_path, env=clean_environment())


def test_the_installed_kernel_starts_and_runs(clean_python: Path, tmp_path: Path) -> None:
    prefix = clean_python.parents[1]
    command = clean_python.with_name("unstuck")
    call(command, "install", "--sys-prefix", cwd=tmp_path, env=clean_environment())
    spec = json.loads((prefix / "share/jupyter/kernels/unstuck/kernel.json").read_text())
    assert spec["argv"][0] == str(clean_python)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(prefix / "share" / "jupyter"))
        patch.delenv("PYTHONPATH", raising=False)
        kernel = Kernel.start("unstuck", tmp_path / "kernel.log", cwd=tmp_path)
    try:
        where = kernel.run_ok("import unstuck_worker; print(unstuck_worker.__file__)").stdout
        assert where.startswith(str(prefix))
    finally:
        kernel.close()


def test_a_notebook_runs_headless(clean_python: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "in.ipynb", "x = 6 * 7", "print('x is', x)\nx")
    target = tmp_path / "out.ipynb"
    command = clean_python.with_name("unstuck")
    call(command, "run", source, "-o", target, cwd=tmp_path, env=clean_environment())
    outputs = load(target).cells[1].outputs
    assert outputs[0].text == "x is 42\n"
    assert outputs[1].data["text/plain"] == "42"
