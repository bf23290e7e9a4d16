"""Real clients run the installed kernelspec, from nbclient to the classes of qtconsole."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from e2e.kernel_client import START_S
from e2e.notebooks import code, load, notebook_of, save
from e2e.spec import KERNEL, OURS, SOURCE_PATH

if TYPE_CHECKING:
    from pathlib import Path

INSTALLED = "unstuck-installed"
CELLS = (
    "import asyncio\nprint('printed')\nawait asyncio.sleep(0.01, 6 * 7)",
    "from IPython.display import HTML\nhandle = display(HTML('<b>x</b>'), display_id=True)",
    "handle.update(HTML('<b>y</b>'))",
    "import sys\nprint('problem', file=sys.stderr)",
)


def _run(*arguments: str, stdin: str | None = None) -> str:
    """Run a module of this Python; give its output."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=2 * START_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module", autouse=True)
def name(private_folders: Path) -> str:
    """Install the kernelspec as a user does; its Jupyter folders are this session's own."""
    if KERNEL != OURS:
        return KERNEL
    assert os.environ["JUPYTER_DATA_DIR"].startswith(str(private_folders))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SOURCE_PATH)
        _run(
            *("unstuck", "install", "--user", "--name", INSTALLED),
            *("--env", "PYTHONPATH", SOURCE_PATH),
        )
    return INSTALLED


def _client(name: str, *cells: str, **options: Any) -> NotebookClient:  # noqa: ANN401 - traits
    return NotebookClient(notebook_of(*cells), kernel_name=name, timeout=60, **options)


def test_nbclient_runs_a_notebook(name: str) -> None:
    notebook = _client(name, *CELLS).execute()
    first, second, third, fourth = (cell.outputs for cell in notebook.cells)
    assert first[0].text == "printed\n"
    assert first[1].data["text/plain"] == "42"
    assert first[1].output_type == "execute_result"
    assert second[0].data["text/html"] == "<b>y</b>", "the update reached the first display"
    assert third == []
    assert (fourth[0].name, fourth[0].text) == ("stderr", "problem\n")
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3, 4]
    assert notebook.metadata.language_info.name == "python"


def test_nbclient_stores_the_state_of_widgets(name: str) -> None:
    notebook = _client(name, "import ipywidgets\nipywidgets.IntSlider(value=7)").execute()
    view = notebook.cells[0].outputs[0].data["application/vnd.jupyter.widget-view+json"]
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert states[view["model_id"]]["state"]["value"] == 7


def test_nbclient_stops_at_an_error_and_names_it(name: str) -> None:
    client = _client(name, "1/0", "'never'")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        client.execute()
    assert client.nb.cells[0].outputs[0].output_type == "error"
    assert client.nb.cells[1].execution_count is None


def test_nbclient_goes_on_where_errors_are_allowed(name: str) -> None:
    notebook = _client(name, "1/0", "'next'", allow_errors=True).execute()
    assert notebook.cells[0].outputs[0].ename == "ZeroDivisionError"
    assert notebook.cells[1].outputs[0].data["text/plain"] == "'next'"


def test_nbclient_interrupts_a_cell_that_takes_too_long(name: str) -> None:
    client = NotebookClient(
        notebook_of("while True: pass", "'next'"),
        kernel_name=name,
        timeout=2,
        interrupt_on_timeout=True,
        allow_errors=True,
    )
    notebook = client.execute()
    assert notebook.cells[0].outputs[-1].ename == "KeyboardInterrupt"
    assert notebook.cells[1].outputs[0].data["text/plain"] == "'next'"


def test_nbclient_gives_up_on_a_cell_in_time(name: str) -> None:
    client = NotebookClient(
        notebook_of("import time; time.sleep(600)"), kernel_name=name, timeout=1
    )
    with pytest.raises(CellTimeoutError):
        client.execute()


def test_papermill_fills_in_parameters(name: str, tmp_path: Path) -> None:
    cells = (code("x = 1", tags=["parameters"]), "print('x is', x)")
    spec = {"name": name, "language": "python", "display_name": "any"}
    source = save(tmp_path / "in.ipynb", *cells, kernelspec=spec)
    target = tmp_path / "out.ipynb"
    _run("papermill", str(source), str(target), "-k", name, "-p", "x", "5")
    notebook = load(target)
    assert notebook.cells[-1].outputs[0].text == "x is 5\n"
    assert notebook.metadata.papermill.exception is None


def test_nbconvert_executes(name: str, tmp_path: Path) -> None:
    source = save(tmp_path / "in.ipynb", "print('from nbconvert')")
    _run(
        *("nbconvert", "--to", "markdown", "--execute", str(source)),
        f"--ExecutePreprocessor.kernel_name={name}",
    )
    assert "from nbconvert" in (tmp_path / "in.md").read_text()


def test_the_console_runs_what_is_typed(name: str) -> None:
    typed = "print(6 * 7)\nword = input('word? ')\nan answer\nprint(word.upper())\n1/0\nexit\n"
    shown = _run(
        "jupyter_console", "--simple-prompt", "--kernel", name, "--no-confirm-exit", stdin=typed
    )
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "42" in shown
    assert "word?" in shown
    assert "AN ANSWER" in shown
    assert "ZeroDivisionError" in shown


def test_qtconsoles_classes_talk_to_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    qt_client = pytest.importorskip(
        "qtconsole.client", reason="no Qt binding", exc_type=ImportError
    )
    from qtconsole.manager import QtKernelManager

    core: Any = importlib.import_module("qtpy.QtCore")
    application = core.QCoreApplication.instance() or core.QCoreApplication([])
    manager = QtKernelManager(kernel_name=name)
    manager.start_kernel()
    client = manager.client()
    assert isinstance(client, qt_client.QtKernelClient)
    replies: list[dict[str, Any]] = []
    published: list[dict[str, Any]] = []
    try:
        client.start_channels()
        client.shell_channel.message_received.connect(replies.append)
        client.iopub_channel.message_received.connect(published.append)
        msg_id = client.execute("print('for Qt')")
        end = time.monotonic() + START_S
        while not _is_answered(replies, published, msg_id):
            assert time.monotonic() < end, (replies, published)
            application.processEvents()
            time.sleep(0.01)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _is_answered(
    replies: list[dict[str, Any]], published: list[dict[str, Any]], msg_id: str
) -> bool:
    texts = [m["content"]["text"] for m in published if m["header"]["msg_type"] == "stream"]
    return any(m["parent_header"]["msg_id"] == msg_id for m in replies) and "for Qt\n" in texts
