"""Run one notebook file: read, execute, write; the same guarantees whatever its cells do."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unstuck.errors import ConfigError
from unstuck.headless.execution import Execution
from unstuck.headless.kernel import KernelChoice, running_kernel
from unstuck.headless.notebook import (
    check_writable,
    clear_outputs,
    is_code,
    read_notebook,
    tidy_outputs,
    write_notebook,
)
from unstuck.headless.report import Observer, Report

if TYPE_CHECKING:
    from pathlib import Path

    from nbformat import NotebookNode

    from unstuck.headless.stop import StopRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How notebooks are run."""

    kernel: KernelChoice = field(default_factory=KernelChoice)
    allow_errors: bool = False
    folder: Path | None = None
    """Where the cells run; None is where the notebook is."""


async def run_notebook(
    path: Path, output: Path, options: RunOptions, observer: Observer, stop: StopRequest
) -> Report:
    """Run the notebook at ``path`` and write it with its outputs to ``output``.

    Raises:
        ConfigError: the notebook or the output cannot be used; nothing was run, unless the output
            became unwritable meanwhile.
        KernelStartError: the kernel did not start; nothing was written.
    """
    notebook = read_notebook(path)
    _check_language(path, notebook, options.kernel)
    folder = _check_folder(options.folder or path.resolve().parent)
    check_writable(output)
    cells = sum(map(is_code, notebook.cells))
    clear_outputs(notebook)
    observer.notebook_started(path, cells)
    started_s = time.monotonic()
    execution = await _execute(notebook, options, folder, observer, stop)
    tidy_outputs(notebook)
    write_notebook(notebook, output)
    report = Report(
        notebook=path,
        output=output,
        cells=cells,
        cells_run=execution.cells_run,
        failures=tuple(execution.failures),
        errors_allowed=options.allow_errors,
        stopped=stop.asked,
        duration_s=time.monotonic() - started_s,
    )
    observer.notebook_ended(report)
    return report


async def _execute(
    notebook: NotebookNode,
    options: RunOptions,
    folder: Path,
    observer: Observer,
    stop: StopRequest,
) -> Execution:
    """Run the cells in a kernel that is gone when this returns."""
    async with running_kernel(options.kernel, folder, stop) as kernel:
        execution = Execution(
            notebook=notebook,
            kernel=kernel,
            observer=observer,
            stop=stop,
            allow_errors=options.allow_errors,
            timeout_s=options.kernel.cell_timeout_s,
        )
        notebook.metadata["language_info"] = await kernel.language_info()
        await execution.run()
    return execution


def _check_language(path: Path, notebook: NotebookNode, kernel: KernelChoice) -> None:
    """Refuse to feed another language to Python."""
    metadata = notebook.metadata
    language = metadata.get("kernelspec", {}).get("language") or metadata.get(
        "language_info", {}
    ).get("name")
    if kernel.name is None and language and str(language).lower() not in ("python", "ipython"):
        raise ConfigError(f"{path} is written in {language}, not in Python: choose its --kernel")


def _check_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"cells cannot run in {folder}: there is no such folder")
    return folder
