"""``unstuck run``: notebooks without a frontend, one after another."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unstuck.command import examples
from unstuck.command.imports import skip_grammar_of_iris
from unstuck.command.options import settings_option
from unstuck.errors import ConfigError, KernelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from unstuck.headless.report import Observer, Report
    from unstuck.headless.runner import RunOptions
    from unstuck.headless.stop import StopRequest

OUTPUT_SUFFIX = ".out.ipynb"

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 130


@click.command(
    "run",
    epilog=examples(
        "unstuck run analysis.ipynb -o result.ipynb",
        "unstuck run *.ipynb --output-dir results --timeout 600",
        "unstuck run slow.ipynb --inplace --allow-errors --set memory_bytes=4000000000",
    ),
)
@click.argument("notebooks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the result goes.")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    help="The folder where the results go, under the notebooks' names; made when missing.",
)
@click.option("--inplace", is_flag=True, help="Write the results into the notebooks themselves.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For each cell; a cell's own timeout (metadata or tag) goes first.",
)
@click.option("--allow-errors", is_flag=True, help="Go on after a cell that failed.")
@click.option("--kernel", metavar="NAME", help="An installed kernelspec instead of this Python.")
@click.option(
    "--cwd",
    type=click.Path(path_type=Path),
    help="The folder where the cells run; each notebook's own unless given.",
)
@settings_option
@click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
@click.pass_context
def run_command(
    ctx: click.Context,
    *,
    notebooks: tuple[Path, ...],
    output: Path | None,
    output_dir: Path | None,
    inplace: bool,
    timeout: float | None,
    allow_errors: bool,
    kernel: str | None,
    cwd: Path | None,
    settings: tuple[str, ...],
    quiet: bool,
) -> None:
    """Run notebooks from top to bottom and keep their outputs, by default in NAME.out.ipynb.

    Exit code: 0 all went well, 1 a cell failed, 2 something could not be used, 130 stopped.
    A failed cell ends its notebook, not the run; what came out until then is kept.
    """
    from rich.console import Console

    skip_grammar_of_iris()
    from unstuck.headless.kernel import KernelChoice, find_spec
    from unstuck.headless.runner import RunOptions

    choice = KernelChoice(name=kernel, settings=settings, cell_timeout_s=timeout)
    find_spec(choice)  # a typo is told once, not once a notebook
    options = RunOptions(kernel=choice, allow_errors=allow_errors, folder=cwd)
    jobs = plan_outputs(notebooks, output=output, folder=output_dir, inplace=inplace)
    batch = Batch(options, Console(stderr=True), quiet=quiet)
    ctx.exit(asyncio.run(batch.run(jobs)))


def plan_outputs(
    notebooks: Sequence[Path], *, output: Path | None, folder: Path | None, inplace: bool
) -> list[tuple[Path, Path]]:
    """Decide where each notebook's result goes.

    Raises:
        ConfigError: options that exclude each other, or two results in one file.
    """
    if (output is not None) + (folder is not None) + inplace > 1:
        raise ConfigError("choose one of --output, --output-dir and --inplace")
    if output is not None and len(notebooks) > 1:
        raise ConfigError("--output is for one notebook: use --output-dir for several")
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make {folder}: {error.strerror or error}") from error
    jobs: dict[Path, Path] = {}
    for notebook in dict.fromkeys(notebooks):
        target = notebook.parent / f"{notebook.stem}{OUTPUT_SUFFIX}"
        if output is not None:
            target = output
        elif folder is not None:
            target = folder / notebook.name
        elif inplace:
            target = notebook
        if target in jobs:
            raise ConfigError(f"{jobs[target]} and {notebook} would both be written to {target}")
        jobs[target] = notebook
    # With 'run *.ipynb' the results of the last time are among the notebooks.
    return [(nb, target) for target, nb in jobs.items() if nb == target or nb not in jobs]


class Batch:
    """Several notebooks, one after another, and one exit code."""

    def __init__(self, options: RunOptions, console: Console, *, quiet: bool) -> None:
        """Report to ``console``."""
        self._options = options
        self._console = console
        self._quiet = quiet
        self._codes: set[int] = set()

    async def run(self, jobs: Sequence[tuple[Path, Path]]) -> int:
        """Run all notebooks that can be run; give the exit code."""
        from unstuck.headless.stop import StopRequest

        stop = StopRequest()
        loop = asyncio.get_running_loop()
        # The kernel has a session of its own: a terminal's Ctrl-C reaches only this process.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.ask)
        for notebook, output in jobs:
            if stop.asked:
                self._tell([f"{notebook}: not run"])
                continue
            await self._run_one(notebook, output, stop)
        if stop.asked:
            return EXIT_STOPPED
        return max(self._codes, default=0)

    async def _run_one(self, notebook: Path, output: Path, stop: StopRequest) -> None:
        from unstuck.command.progress import BarProgress, PlainProgress
        from unstuck.headless.report import SilentObserver
        from unstuck.headless.runner import run_notebook

        observer: Observer = SilentObserver()
        if not self._quiet:
            terminal = self._console.is_terminal
            observer = BarProgress(self._console) if terminal else PlainProgress(self._console)
        try:
            report = await run_notebook(notebook, output, self._options, observer, stop)
        except ConfigError as error:
            self._fail(EXIT_BAD_INPUT, str(error))
        except KernelError as error:
            self._fail(EXIT_FAILED, f"{notebook}: {error}")
        else:
            self._conclude(report)
        finally:
            if isinstance(observer, BarProgress):
                observer.close()

    def _fail(self, code: int, line: str) -> None:
        self._codes.add(code)
        self._tell([f"unstuck: {line}"])

    def _conclude(self, report: Report) -> None:
        """Show how a notebook went; what went wrong also when asked to be quiet."""
        from unstuck.command.progress import describe, failure_lines

        for failure in report.failures:
            self._tell(failure_lines(report.notebook, failure))
        if not report.passed:
            self._codes.add(EXIT_FAILED)
        if not self._quiet or not report.passed:
            self._tell([describe(report)])

    def _tell(self, lines: Sequence[str]) -> None:
        from rich.text import Text

        for line in lines:
            self._console.print(Text.from_ansi(line), soft_wrap=True, highlight=False)
