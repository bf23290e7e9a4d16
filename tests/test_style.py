"""What CI checks beside behaviour: lint, format, types and spelling of the whole tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = ("kernel", "broker", "worker", "tests")
TEXTS = (*CODE, "docs", "README.md", "CHANGELOG.md", "pyproject.toml")
NO_TEXT = "*.ipynb,*.svg,*.png,*.json"
RUN_S = 900.0
"""Type checkers take minutes on a busy machine without their caches."""


def run(tool: str, *arguments: str) -> None:
    """Run a tool on the tree; show what it found."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(tool, path=folders)
    if found is None:
        pytest.skip(f"{tool} is not installed: pip install -e .[test]")
    done = subprocess.run(
        [found, *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": folders, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{tool} {' '.join(arguments)}\n{done.stdout}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", *CODE)


def test_the_code_is_formatted() -> None:
    run("ruff", "format", "--check", *CODE)


def test_mypy_finds_nothing() -> None:
    run("mypy", *CODE)


def test_pyright_finds_nothing() -> None:
    run("pyright", "--pythonpath", sys.executable)


def test_the_words_are_spelled_right() -> None:
    run("codespell", "--skip", NO_TEXT, *(text for text in TEXTS if (ROOT / text).exists()))
