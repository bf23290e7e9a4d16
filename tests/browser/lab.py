"""A JupyterLab server for a test: a port, folders and settings of its own, and gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START_S = 60.0
STOP_S = 15.0

USER_SETTINGS: dict[str, dict[str, Any]] = {
    # A notebook that shows only the cells in view would hide outputs from the tests.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def missing_parts() -> list[str]:
    """List the Python packages that a session needs and this environment lacks."""
    return [name for name in ("jupyterlab", "ipywidgets", "matplotlib") if find_spec(name) is None]


Cell = dict[str, Any]


def code_cell(source: str, number: int = 0) -> Cell:
    """Make a code cell that has not run."""
    return {
        "cell_type": "code",
        "id": f"cell-{number}",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }


def write_notebook(path: Path, kernel: str, sources: Sequence[str | Cell]) -> None:
    """Write a notebook for a kernel; a string is a code cell."""
    cells = [
        code_cell(source, number) if isinstance(source, str) else source
        for number, source in enumerate(sources)
    ]
    kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": kernelspec},
        "cells": cells,
    }
    path.write_text(json.dumps(notebook))


class LabServer:
    """``jupyter lab`` without a token, on a port that the system chose."""

    def __init__(self, folder: Path) -> None:
        """Start the server; notebooks are those in ``folder``/notebooks."""
        self.notebooks = folder / "notebooks"
        self._log = folder / "server.log"
        self._runtime = folder / "runtime"
        self._write_settings(folder / "settings")
        self.notebooks.mkdir()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(folder),
                cwd=self.notebooks,
                env={**os.environ, "JUPYTER_RUNTIME_DIR": str(self._runtime)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.url = self._wait_for_url()
        except BaseException:
            self.close()
            raise

    def _command(self, folder: Path) -> list[str]:
        """Build the command line; nothing outside ``folder`` is read or written."""
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": "0",
            "ServerApp.root_dir": str(self.notebooks),
            "ServerApp.allow_root": "True",
            "ServerApp.open_browser": "False",
            "IdentityProvider.token": "",
            "LabApp.user_settings_dir": str(folder / "settings"),
            "LabApp.workspaces_dir": str(folder / "workspaces"),
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-m", "jupyterlab", *arguments]

    @staticmethod
    def _write_settings(folder: Path) -> None:
        for name, values in USER_SETTINGS.items():
            path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))

    def _wait_for_url(self) -> str:
        """Wait until the server says where it listens."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            for info in self._runtime.glob("jpserver-*.json"):
                # The file is there a moment before its text is.
                with contextlib.suppress(ValueError):
                    return str(json.loads(info.read_text())["url"])
            time.sleep(0.05)
        raise AssertionError(f"JupyterLab did not start: {self.log_text[-4000:]}")

    @property
    def log_text(self) -> str:
        """Give what the server and its kernels wrote."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End the server and its kernels, and see that all their processes are gone."""
        family = [psutil.Process(self._process.pid)] if self._process.poll() is None else []
        for process in list(family):
            family += process.children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)
        _, left = psutil.wait_procs(family, timeout=STOP_S)
        for process in left:
            process.kill()
        assert not left, f"JupyterLab left processes: {left}"
