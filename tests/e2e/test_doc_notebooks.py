"""The notebooks of the docs run from top to bottom, and are stored with what comes out.

With ``UNSTUCK_TAKE_PICTURES`` set, what comes out is stored anew.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from e2e.notebooks import load
from e2e.spec import ROOT, SOURCE_PATH, ours
from unstuck.headless.kernel import KernelChoice
from unstuck.headless.report import SilentObserver
from unstuck.headless.runner import RunOptions, run_notebook
from unstuck.headless.stop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode

pytestmark = ours

FOLDER = ROOT / "docs" / "notebooks"
TAKE = "UNSTUCK_TAKE_PICTURES"
LIMIT_S = 60.0
"""For each cell; far beyond what an idle machine needs."""
BUTTON = "Button(description='Finish', style=ButtonStyle())"
CHANCE = re.compile(r"0x[0-9a-f]+|\d+|None|NaN| +")
"""What differs from run to run, and between versions of pandas."""

Cells = dict[str, "NotebookNode"]


class Ran:
    """One notebook as it is stored, and as it comes out now."""

    def __init__(self, name: str, folder: Path) -> None:
        """Run the notebook in a folder of its own."""
        self.path = FOLDER / f"{name}.ipynb"
        self.stored = load(self.path)
        target = folder / self.path.name
        options = RunOptions(kernel=KernelChoice(cell_timeout_s=LIMIT_S), folder=folder)
        self.report = asyncio.run(
            run_notebook(self.path, target, options, SilentObserver(), StopRequest())
        )
        self.fresh = load(target)
        self.cells: Cells = {str(cell.id): cell for cell in self.fresh.cells}

    def text(self, cell: str) -> str:
        """Join what a cell printed."""
        return "".join(str(output.get("text", "")) for output in self.cells[cell].outputs)

    def value(self, cell: str) -> str:
        """Give the plain text of a cell's value."""
        (result,) = [o for o in self.cells[cell].outputs if o.output_type == "execute_result"]
        return str(result.data["text/plain"])

    def error(self, cell: str) -> str:
        """Give the error of a cell, in one line."""
        (error,) = [o for o in self.cells[cell].outputs if o.output_type == "error"]
        return f"{error.ename}: {error.evalue}"

    def store(self) -> None:
        """Keep what came out in the docs, without what only this run is about."""
        self.fresh.metadata = self.stored.metadata
        for cell in self.fresh.cells:
            cell.metadata.pop("execution", None)
        untyped: Any = nbformat
        text = str(untyped.writes(self.fresh))
        places = {sys.prefix: ".venv", f"{ROOT}/": "", str(Path.home()): "~"}
        for place, name in places.items():
            text = text.replace(place, name)
        self.path.write_text(text + "\n", encoding="utf-8")


def _run(name: str, factory: pytest.TempPathFactory) -> Iterator[Ran]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SOURCE_PATH)
        ran = Ran(name, factory.mktemp(name))
    if TAKE in os.environ:
        ran.store()
    yield ran


@pytest.fixture(scope="module")
def concurrency(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    yield from _run("concurrency", tmp_path_factory)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    yield from _run("caller", tmp_path_factory)


@pytest.fixture(scope="module")
def never_stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    yield from _run("never_stuck", tmp_path_factory)


# --- all three ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["concurrency", "caller", "never_stuck"])
def test_a_notebook_runs_and_gives_what_is_stored_in_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    ran: Ran = request.getfixturevalue(name)
    assert ran.report.passed, ran.report.failures
    assert ran.report.cells_run == ran.report.cells
    stored = {str(cell.id): cell for cell in load(ran.path).cells}
    assert list(stored) == list(ran.cells)
    for name_of_cell, cell in ran.cells.items():
        assert _kinds(cell) == _kinds(stored[name_of_cell]), name_of_cell
        assert _words(cell) == _words(stored[name_of_cell]), name_of_cell


def _kinds(cell: NotebookNode) -> set[str]:
    """Name the kinds of outputs; how often depends on who came first."""
    return {f"{o.output_type} {o.get('name', '')}" for o in cell.get("outputs", [])}


def _words(cell: NotebookNode) -> list[str]:
    """List the lines of a cell's outputs, without numbers and places, in no order of threads."""
    lines: list[str] = []
    for output in cell.get("outputs", []):
        plain = str(output.get("data", {}).get("text/plain", ""))
        error = f"{output.get('ename', '')} {output.get('evalue', '')}"
        lines += [*str(output.get("text", "")).splitlines(), *plain.splitlines(), error]
    return sorted(CHANCE.sub("#", line) for line in lines)


# --- concurrency ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "mode", "thread"),
    [
        ("queue", "##queue", "MainThread"),
        ("task", "##task", "MainThread"),
        ("literal", "##task", "MainThread"),
        ("thread", "##thread", r"Thread-\d+ \(anyio_run_caller\)"),
    ],
)
def test_a_cell_that_waits_for_its_button_says_where_it_runs(
    concurrency: Ran, cell: str, mode: str, thread: str
) -> None:
    said = rf"Run mode: {mode}, thread: {thread}\nFinished \.\.\. thread: {thread}\n"
    assert re.fullmatch(said, concurrency.text(cell))
    assert concurrency.value(cell) == "'Finished'"
    shown = [o.data["text/plain"] for o in concurrency.cells[cell].outputs if "data" in o]
    assert shown[0] == BUTTON


def test_the_concurrency_notebook_shows_the_table_and_the_callers(concurrency: Ran) -> None:
    table = concurrency.value("table")
    assert re.search(r"execute_request +queue +blocking +task +blocking", table)
    callers = concurrency.text("named")
    assert callers.splitlines()[1] == "─" * 70
    assert "   ✓\t   🔐\t\tMainThread" in callers
    assert "downloads\t← current thread" in callers


def test_the_concurrency_notebook_runs_cells_beside_a_busy_one(concurrency: Ran) -> None:
    assert concurrency.text("metadata") == "##thread\n"
    assert concurrency.value("one-cell") == "('Finished', 'Finished')"
    assert concurrency.text("busy") == "done: False\n"
    assert concurrency.value("busy") == "'the gate was opened'"


def test_the_concurrency_notebook_shows_what_cannot_be(concurrency: Ran) -> None:
    unknown = "unknown run mode 'sideways' in the message metadata: use one of queue, task, thread"
    assert concurrency.error("unknown").startswith(f"ValueError: {unknown}")
    assert concurrency.error("on-shell").startswith("ValueError: shutdown_request is not allowed")


# --- caller ---------------------------------------------------------------------------------------


def test_the_caller_notebook_shows_calls_and_their_order(caller: Ran) -> None:
    assert caller.text("soon") == "worker and MainThread\n"
    assert caller.value("soon") == "'a result'"
    assert caller.text("thread") == "the cell went on meanwhile: True\n"
    assert caller.value("trio") == "('trio', 'waited for')"
    events = [f"{edge} {number}" for number in range(3) for edge in ("begin", "end")]
    assert caller.value("queue") == str(events)
    assert caller.text("completed") == "never more than 3 at a time\n"
    assert caller.value("completed") == str(list(range(12)))


def test_the_caller_notebook_shows_timeouts_and_cancellation(caller: Ran) -> None:
    assert caller.text("wait") == "{'quick'} is done, 1 is not\n"
    assert "was not done within 0.1 s" in caller.text("timeout")
    assert caller.value("timeout") == "True"
    assert caller.value("shield") == "'in time'"
    assert caller.text("cancel") == "tidied up\nFutureCancelledError not needed any more\n"
    assert caller.text("context") == "worker: kg, ##queue\n"


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("error", "ZeroDivisionError: division by zero"),
        ("nobody", "RuntimeError: Caller<AnyIO worker thread> does not exist: make one"),
        ("oneself", "DeadlockError: waiting for oneself is a deadlock: Caller<worker>"),
        ("negative", "ValueError: Caller<MainThread>: delay must be zero or more seconds, not -1"),
        ("stopped", "CallerStoppedError: Caller<worker> has stopped: it takes no more calls"),
    ],
)
def test_the_caller_notebook_shows_errors_that_name_the_caller(
    caller: Ran, cell: str, error: str
) -> None:
    assert caller.error(cell).startswith(error)


# --- never stuck ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("hang", "TimeoutError: the cell ran longer than 2 s; .* worker died by SIGKILL"),
        ("loop", "KeyboardInterrupt: "),
        ("await", "KeyboardInterrupt: "),
        ("crash", "WorkerDied: the worker died by SIGSEGV; all variables were lost"),
        ("exit", "WorkerDied: the worker ended with exit code 3; all variables were lost"),
        ("sleep", "TimeoutError: the cell did not end within its timeout of 1 s"),
    ],
)
def test_the_never_stuck_notebook_gets_an_error_from_each_cell_that_would_hang_or_kill(
    never_stuck: Ran, cell: str, error: str
) -> None:
    assert re.match(error, never_stuck.error(cell))


def test_the_never_stuck_notebook_goes_on_after_each_of_them(never_stuck: Ran) -> None:
    assert never_stuck.value("after") == "False"
    assert never_stuck.value("kept") == "'what the session knows'"
    assert never_stuck.text("await") == "tidied up\n"
    assert never_stuck.value("crashed") == "'the next cell runs'"
    assert never_stuck.value("slept") == "'still here'"
    assert never_stuck.value("beside") == "False"
    assert never_stuck.text("stack") == "True\n"


def test_the_never_stuck_notebook_says_where_it_hung_and_crashed(never_stuck: Ran) -> None:
    (hang,) = [o for o in never_stuck.cells["hang"].outputs if o.output_type == "error"]
    assert re.search(r"line 4 in <module>", "\n".join(hang.traceback))
    (crash,) = [o for o in never_stuck.cells["crash"].outputs if o.output_type == "error"]
    assert re.search(r"Segmentation fault[\s\S]*in string_at", "\n".join(crash.traceback))


def test_the_never_stuck_notebook_cuts_its_flood(never_stuck: Ran) -> None:
    assert "19,998,000 bytes of this cell's output were cut" in never_stuck.text("flood")
    assert len(never_stuck.text("flood")) < 3000
