"""The notebook about concurrency in JupyterLab: cells that wait side by side for their buttons."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from browser.browser import ROOT
from browser.session import open_notebook
from e2e.spec import ours, spec_for_tests, write_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from browser.notebook import NotebookPage

pytestmark = ours

TAKE = "UNSTUCK_TAKE_PICTURES"
IMAGES = ROOT / "docs" / "images"
NOTEBOOK = ROOT / "docs" / "notebooks" / "concurrency.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
NUMBER = {cell["id"]: number for number, cell in enumerate(CELLS)}
DEMO = ("queue", "task", "thread")
BUTTON = ".jupyter-button"
BUSY = "[*]:"


@pytest.fixture(scope="module")
def page(private_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookPage]:
    """Open the notebook as it is in the docs, under a kernel with the name that people see."""
    spec = spec_for_tests()
    spec["display_name"] = "Python 3 (unstuck)"
    kernel = write_spec(private_folders / "path", "unstuck", spec)
    folder = tmp_path_factory.mktemp("lab")
    with open_notebook(folder, kernel, _forgotten(CELLS), name="concurrency") as page:
        page.resize(1000, 1050)
        yield page


def _forgotten(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the stored outputs away: what is seen is of now."""
    empty: dict[str, Any] = {"outputs": [], "execution_count": None}
    return [{**cell, **empty} if cell["cell_type"] == "code" else cell for cell in cells]


def test_three_cells_wait_side_by_side_and_end_when_their_buttons_are_pressed(
    page: NotebookPage,
) -> None:
    for cell in ("one-mode", "define"):
        page.run(NUMBER[cell])
    for cell in DEMO:
        page.start(NUMBER[cell])
        page.wait_for_text(NUMBER[cell], f"Run mode: ##{cell}")
        page.wait_for_text(NUMBER[cell], "Finish")
    assert [page.prompt(NUMBER[cell]) for cell in DEMO] == [BUSY] * 3
    _take(page, "concurrency")

    waiting = list(DEMO)
    while waiting:
        cell = waiting.pop()
        page.click(NUMBER[cell], BUTTON)
        page.wait_until_ended(NUMBER[cell])
        assert [page.prompt(NUMBER[other]) for other in waiting] == [BUSY] * len(waiting)
    for cell in DEMO:
        assert "'Finished'" in page.text(NUMBER[cell])
    threads = [_thread_of(page.text(NUMBER[cell])) for cell in DEMO]
    assert threads[:2] == ["MainThread"] * 2
    assert threads[2].startswith("Thread-")
    _take(page, "concurrency-finished")


def _thread_of(text: str) -> str:
    """Read the thread that a cell ended in; it is the one that it began in."""
    began, ended = (
        line.rpartition("thread: ")[2] for line in text.splitlines() if "thread:" in line
    )
    assert began == ended
    return began


def _take(page: NotebookPage, name: str) -> None:
    if TAKE in os.environ:
        page.picture(IMAGES / f"{name}.png")


def test_the_table_of_run_modes_and_the_callers_are_shown(page: NotebookPage) -> None:
    assert "shutdown_request" in page.run(NUMBER["table"])
    text = page.run(NUMBER["named"])
    assert "MainThread" in text
    assert "downloads" in text
    assert "← current thread" in text


def test_the_metadata_of_a_cell_and_the_literal_mode_choose_too(page: NotebookPage) -> None:
    assert "##thread" in page.run(NUMBER["metadata"])
    page.start(NUMBER["literal"])
    page.wait_for_text(NUMBER["literal"], "Run mode: ##task")
    page.click(NUMBER["literal"], BUTTON)
    page.wait_until_ended(NUMBER["literal"])


def test_a_cell_of_an_unknown_mode_shows_its_error(page: NotebookPage) -> None:
    page.start(NUMBER["unknown"])
    page.wait_for_text(NUMBER["unknown"], "unknown run mode 'sideways'")
