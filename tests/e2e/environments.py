"""Python environments made for tests: our wheel, built once, installed where no checkout is."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.spec import ROOT

if TYPE_CHECKING:
    from collections.abc import Generator

INSTALL_S = 300.0
"""How long pip may take; with its cache filled it needs seconds."""
OFFLINE = ("NewConnectionError", "Temporary failure in name resolution", "No matching distribution")


def call(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; give its stdout. Without a network the test is skipped."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode and any(sign in done.stderr + done.stdout for sign in OFFLINE):
        pytest.skip(f"no network: {done.stderr[-200:]}")
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def clean_environment() -> dict[str, str]:
    """Give this process's environment without what points at the checkout or another Python."""
    hidden = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def build_wheel(folder: Path) -> Path:
    """Build our wheel into ``folder``."""
    has_backend = importlib.util.find_spec("hatchling") is not None
    options = ["--no-isolation"] if has_backend else []
    call(sys.executable, "-m", "build", "--wheel", *options, "--outdir", folder, ROOT)
    (wheel,) = folder.glob("unstuck-*.whl")
    return wheel


def make_venv(python: Path | str, folder: Path) -> Path:
    """Make an environment; give its Python."""
    call(python, "-m", "venv", folder, env=clean_environment())
    return folder / "bin" / "python"


def pip_install(python: Path, *arguments: str | Path) -> None:
    """Install with the environment's own pip, as a user does."""
    call(python, "-m", "pip", "install", "--quiet", *arguments, env=clean_environment())


def find_python(version: str) -> Path:
    """Find a CPython of pyenv's by its minor version; without one the test is skipped."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob(f"versions/{version}.*/bin/python"), key=lambda path: path.parts[-3])
    if not found:
        pytest.skip(f"no CPython {version} in {root}/versions")
    return found[-1]


@contextlib.contextmanager
def python_with(wheel: Path, base: Path, *extras: str) -> Generator[Path]:
    """Give a Python made from ``base`` in which ``wheel`` is installed, and what it needs.

    What it needs is kept between runs; a lock keeps two runs of the tests from using one
    environment at once, as each installs its own wheel there.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    key = hashlib.sha256("\n".join([str(base), *wanted]).encode()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"unstuck-tests-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    with (cache / f"{key}.lock").open("w") as lock:
        _lock(lock.fileno())
        complete = cache / key / "complete"
        if not complete.exists():
            pip_install(make_venv(base, cache / key), *wanted)
            complete.touch()
        python = cache / key / "bin" / "python"
        pip_install(python, "--no-deps", "--force-reinstall", wheel)
        yield python


def _lock(handle: int) -> None:
    end = time.monotonic() + INSTALL_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert time.monotonic() < end, "another run of the tests holds the environment"
            time.sleep(0.2)
        else:
            return
