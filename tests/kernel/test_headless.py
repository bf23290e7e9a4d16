"""Notebooks run without a frontend: what is kept, what is told; no cell can hold up the run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from e2e.notebooks import code, load, markdown, save, stdout
from e2e.spec import KERNEL, OURS, ROOT, SOURCE_PATH, ours
from unstuck.errors import ConfigError
from unstuck.headless.execution import own_timeout_s
from unstuck.headless.kernel import KernelChoice, KernelStartError
from unstuck.headless.report import Cause, Report
from unstuck.headless.runner import RunOptions, run_notebook
from unstuck.headless.stop import StopRequest

if TYPE_CHECKING:
    from pathlib import Path

    from nbformat import NotebookNode

NAME = None if KERNEL == OURS else KERNEL
CHOICE = KernelChoice(name=NAME)
"""Ours needs no kernelspec; another kernel shows that the tests themselves are right."""

JULIA = {"name": "julia-1", "display_name": "Julia", "language": "julia"}
HANG = "import itertools\nmax(itertools.repeat(1))"


@pytest.fixture(autouse=True)
def source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels that are started from here find us, installed or not."""
    monkeypatch.setenv("PYTHONPATH", SOURCE_PATH)


@dataclass
class Recorder:
    """Keep what an observer hears."""

    heard: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])

    def notebook_started(self, notebook: Path, cells: int) -> None:
        self.heard.append(("notebook", notebook.name, cells))

    def cell_started(self, number: int, first_line: str) -> None:
        self.heard.append(("start", number, first_line))

    def cell_ended(self, number: int, duration_s: float, *, failed: bool) -> None:
        assert duration_s >= 0
        self.heard.append(("end", number, failed))

    def notebook_ended(self, report: Report) -> None:
        self.heard.append(("report", report.passed))


@dataclass
class Ran:
    """One run and what it wrote."""

    report: Report
    notebook: NotebookNode
    recorder: Recorder

    def outputs(self, index: int) -> list[Any]:
        return list(self.notebook.cells[index].outputs)

    def text(self, index: int) -> str:
        return "".join(str(output.get("text", "")) for output in self.outputs(index))


def run(
    place: Path,
    *cells: NotebookNode | str,
    kernel: KernelChoice = CHOICE,
    timeout_s: float | None = None,
    allow_errors: bool = False,
    folder: Path | None = None,
) -> Ran:
    path = save(place / "in.ipynb", *cells)
    recorder, output = Recorder(), place / "out.ipynb"
    options = RunOptions(
        kernel=replace(kernel, cell_timeout_s=timeout_s), allow_errors=allow_errors, folder=folder
    )
    report = asyncio.run(run_notebook(path, output, options, recorder, StopRequest()))
    return Ran(report, load(output), recorder)


def test_a_notebook_runs_from_top_to_bottom_and_keeps_its_outputs(tmp_path: Path) -> None:
    ran = run(tmp_path, markdown("# text"), "x = 20\nprint('hello')", "", "x + 1")
    assert ran.text(1) == "hello\n"
    [result] = ran.outputs(3)
    assert (result.output_type, result.data["text/plain"]) == ("execute_result", "21")
    assert [cell.get("execution_count") for cell in ran.notebook.cells] == [None, 1, None, 2]
    assert ran.notebook.metadata.language_info["name"] == "python"
    assert ran.report.passed
    assert (ran.report.cells, ran.report.cells_run, ran.report.failures) == (2, 2, ())


def test_a_run_can_be_followed_cell_by_cell(tmp_path: Path) -> None:
    ran = run(tmp_path, "\n1", "2")
    assert ran.recorder.heard == [
        ("notebook", "in.ipynb", 2),
        *(("start", 1, "1"), ("end", 1, False)),
        *(("start", 2, "2"), ("end", 2, False)),
        ("report", True),
    ]


def test_another_kernel_can_be_chosen_by_name(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        "type(get_ipython()).__module__",
        kernel=KernelChoice(name="python3"),
    )
    assert ran.outputs(0)[0].data["text/plain"] == "'ipykernel.zmqshell'"


@ours
def test_settings_reach_the_kernel(tmp_path: Path) -> None:
    choice = KernelChoice(settings=["matplotlib_backend=template"])
    ran = run(tmp_path, "import os; os.environ['MPLBACKEND']", kernel=choice)
    assert ran.outputs(0)[0].data["text/plain"] == "'template'"


def test_a_failing_cell_ends_its_notebook_and_is_named(tmp_path: Path) -> None:
    ran = run(tmp_path, "print('before')", "def f():\n    return 1 / 0\nf()", "print('never')")
    [failure] = ran.report.failures
    assert failure.cause is Cause.error
    assert (failure.cell_number, failure.first_line) == (2, "def f():")
    assert (failure.ename, failure.evalue) == ("ZeroDivisionError", "division by zero")
    assert any("1 / 0" in line or "line 2" in line for line in failure.traceback)
    assert not ran.report.passed
    assert ran.text(0) == "before\n"
    assert ran.outputs(1)[-1].ename == "ZeroDivisionError"
    assert ran.outputs(2) == []
    assert ran.recorder.heard[-2:] == [("end", 2, True), ("report", False)]


def test_with_errors_allowed_the_run_goes_on_and_tells_all_of_them(tmp_path: Path) -> None:
    ran = run(tmp_path, "1 / 0", "print('on')", "undefined_name", allow_errors=True)
    assert [failure.ename for failure in ran.report.failures] == ["ZeroDivisionError", "NameError"]
    assert ran.text(1) == "on\n"
    assert ran.report.passed


def test_a_cell_that_is_tagged_may_raise(tmp_path: Path) -> None:
    ran = run(tmp_path, code("1 / 0", tags=["raises-exception"]), "print('on')")
    assert ran.report.failures == ()
    assert ran.outputs(0)[-1].ename == "ZeroDivisionError"
    assert ran.text(1) == "on\n"


@ours
@pytest.mark.parametrize("source", ["import time; time.sleep(60)", HANG])
def test_a_cell_that_is_tagged_may_run_into_a_limit_of_its_own(tmp_path: Path, source: str) -> None:
    tagged = code(source, tags=["raises-exception", "timeout=1"])
    ran = run(tmp_path, tagged, "print('on')", timeout_s=50)
    assert ran.report.failures == ()
    assert ran.outputs(0)[-1].ename == "TimeoutError"
    assert ran.text(1) == "on\n"


def test_a_cell_that_is_tagged_may_not_run_into_the_limit_of_the_run(tmp_path: Path) -> None:
    tagged = code("import time; time.sleep(60)", tags=["raises-exception"])
    ran = run(tmp_path, tagged, "print('on')", timeout_s=1.0)
    assert [failure.cause for failure in ran.report.failures] == [Cause.timeout]
    assert ran.outputs(1) == []


def test_a_cell_that_is_tagged_is_skipped(tmp_path: Path) -> None:
    ran = run(tmp_path, code("1 / 0", tags=["skip-execution"]), "print('on')")
    assert ran.report.passed
    assert ran.outputs(0) == []


def test_input_is_a_clear_error_in_the_cell(tmp_path: Path) -> None:
    ran = run(tmp_path, "input('name? ')")
    [failure] = ran.report.failures
    assert failure.ename == "StdinNotImplementedError"
    assert "input" in failure.evalue


def test_a_cell_that_runs_too_long_is_interrupted_and_told_with_its_place(tmp_path: Path) -> None:
    ran = run(tmp_path, "import time\nprint('a')\ntime.sleep(60)", "print('b')", timeout_s=1.0)
    [failure] = ran.report.failures
    assert failure.cause is Cause.timeout
    assert failure.ename == "TimeoutError"
    assert "1 s" in failure.evalue
    assert any("time.sleep" in line for line in failure.traceback)
    assert ran.text(0).startswith("a\n")
    assert ran.outputs(1) == []


def test_a_cell_may_set_its_own_limit(tmp_path: Path) -> None:
    slow = "import time; time.sleep(1.5); print('done')"
    ran = run(tmp_path, code(slow, tags=["timeout=50"]), timeout_s=0.8)
    assert ran.text(0) == "done\n"
    assert ran.report.passed


@pytest.mark.parametrize(
    ("metadata", "limit_s"),
    [
        ({}, None),
        ({"timeout": 3}, 3.0),
        ({"timeout": "2.5"}, 2.5),
        ({"timeout": None, "tags": ["a", "timeout=7"]}, 7.0),
        ({"tags": ["timeout=soon"]}, None),
        ({"timeout": 0}, None),
        ({"timeout": -1}, None),
        ({"timeout": float("nan")}, None),
    ],
)
def test_a_cells_own_limit_is_read(metadata: dict[str, Any], limit_s: float | None) -> None:
    assert own_timeout_s(metadata) == limit_s


@pytest.mark.parametrize("name", [NAME, "python3"])
def test_a_cell_that_no_interrupt_reaches_cannot_hold_up_the_run(
    tmp_path: Path, name: str | None
) -> None:
    choice = KernelChoice(name=name)
    ran = run(tmp_path, "print('kept')", HANG, kernel=choice, timeout_s=1.0)
    [failure] = ran.report.failures
    assert failure.cause is Cause.timeout
    assert ran.text(0) == "kept\n"
    assert ran.outputs(1)[0].output_type == "error"


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("import os\nprint('last words', flush=True)\nos._exit(7)", "exit code 7"),
        ("import os\nprint('last words', flush=True)\nos.kill(os.getpid(), 9)", "SIGKILL"),
    ],
)
def test_the_death_of_another_kernel_is_told(tmp_path: Path, source: str, how: str) -> None:
    ran = run(tmp_path, source, "2", kernel=KernelChoice(name="python3"))
    [failure] = ran.report.failures
    assert failure.cause is Cause.death
    assert how in failure.evalue
    assert ran.outputs(0)[-1].ename == "DeadKernelError"
    assert not ran.report.passed


def test_a_kernel_that_does_not_start_says_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = tmp_path / "unstuck_broker"
    broken.mkdir()
    (broken / "__init__.py").write_text("")
    (broken / "__main__.py").write_text("raise SystemExit('no such luck')")
    with pytest.raises(KernelStartError, match="no such luck"):
        run(tmp_path, "1", kernel=KernelChoice())
    assert not (tmp_path / "out.ipynb").exists()


@ours
def test_output_of_a_thread_goes_to_the_cell_that_started_it_also_when_that_has_ended(
    tmp_path: Path,
) -> None:
    ran = run(
        tmp_path,
        "import threading\n"
        "go, done = threading.Event(), threading.Event()\n"
        "def work():\n    go.wait(20)\n    print('late')\n    done.set()\n"
        "threading.Thread(target=work).start()\nprint('early')",
        "go.set()\ndone.wait(20)\nprint('second')",
        "print('third')",
    )
    assert ran.text(0) == "early\nlate\n"
    assert ran.text(1) == "second\n"


def test_a_cell_sees_its_tags(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        code("get_ipython().get_parent()['metadata']['tags']", tags=["mine"]),
        kernel=KernelChoice(name="python3"),
    )
    assert ran.outputs(0)[0].data["text/plain"] == "['mine']"


def test_the_state_of_widgets_is_kept_in_the_notebook(tmp_path: Path) -> None:
    ran = run(tmp_path, "import ipywidgets\nslider = ipywidgets.IntSlider(value=4)\nslider")
    view = ran.outputs(0)[0].data["application/vnd.jupyter.widget-view+json"]
    state = ran.notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert state[view["model_id"]]["state"]["value"] == 4


def test_what_an_output_widget_captures_is_kept_in_it(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    print('inside')\nout",
    )
    view = ran.outputs(0)[-1].data["application/vnd.jupyter.widget-view+json"]
    state = ran.notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    [output] = state[view["model_id"]]["state"]["outputs"]
    assert output["text"] == "inside\n"


def test_no_reply_is_overlooked_while_a_widget_captures(tmp_path: Path) -> None:
    first = "import ipywidgets\nlog = ipywidgets.Output()"
    ran = run(tmp_path, first, *["with log: print('quince')"] * 60, timeout_s=20)
    assert ran.report.passed, ran.report.failures


def test_cells_run_where_their_notebook_is_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    source = "import os; print(os.getcwd())"
    assert run(tmp_path, source).text(0) == f"{tmp_path}\n"
    assert run(tmp_path, source, folder=tmp_path / "other").text(0) == f"{tmp_path / 'other'}\n"


def test_old_outputs_never_stand_beside_what_is_new(tmp_path: Path) -> None:
    old = code("print('never')")
    old.outputs = [stdout("old")]
    old.execution_count = 99
    ran = run(tmp_path, "1 / 0", old)
    assert (ran.outputs(1), ran.notebook.cells[1].execution_count) == ([], None)


@ours
def test_the_demo_notebook_runs(tmp_path: Path) -> None:
    demo = ROOT / "docs" / "notebooks" / "demo.ipynb"
    output = tmp_path / "out.ipynb"
    report = asyncio.run(
        run_notebook(
            demo,
            output,
            RunOptions(kernel=replace(CHOICE, cell_timeout_s=60)),
            Recorder(),
            StopRequest(),
        )
    )
    assert report.passed, report.failures
    cells = {cell.id: cell for cell in load(output).cells}
    kinds = {
        name: [kind for output in cells[name].outputs for kind in output.get("data", {})]
        for name in ("tables", "picture", "rich", "widgets", "await")
    }
    assert "text/html" in kinds["tables"]
    assert "image/png" in kinds["picture"]
    assert set(kinds["rich"]) >= {
        *("text/html", "text/markdown", "text/latex", "image/svg+xml", "application/json")
    }
    assert "application/vnd.jupyter.widget-view+json" in kinds["widgets"]
    assert "quince quince" in str(load(output).metadata.widgets)
    assert cells["update"].outputs[0].data["text/plain"] == "'counted to 3'"
    assert cells["task"].outputs[0].text == "Run mode: ##task\n"
    assert "main thread: False" in cells["thread"].outputs[0].text
    assert cells["raises"].outputs[0].ename == "TypeError"
    words = "".join(output.text for output in cells["process"].outputs)
    assert "a child process says hello" in words
    assert "the shell says hello" in words


def test_the_demo_notebook_is_valid_and_has_no_outputs() -> None:
    notebook = load(ROOT / "docs" / "notebooks" / "demo.ipynb")
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_a_notebook_in_another_language_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ipynb", "1", kernelspec=JULIA)
    with pytest.raises(ConfigError, match="julia"):
        asyncio.run(
            run_notebook(path, tmp_path / "o.ipynb", RunOptions(), Recorder(), StopRequest())
        )
