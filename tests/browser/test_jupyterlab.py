"""JupyterLab in a real browser: what a person does with a notebook works with this kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.session import open_notebook
from e2e.spec import ours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from browser.notebook import NotebookPage

HELLO = """\
import pandas as pd
print("Hello from", "unstuck")
pd.DataFrame({"fruit": ["apple", "quince"], "price": [1.2, 2.75]})"""
PICTURE = """\
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(5, 1.6))
axes.plot([3, 1, 4, 1, 5, 9, 2, 6]);"""
WIDGETS = """\
import ipywidgets as widgets
slider = widgets.IntSlider(value=3, max=10, description="quinces")
button = widgets.Button(description="One more")
said = widgets.Label("nothing yet")
slider.observe(lambda change: setattr(said, "value", f"now {change.new}"), "value")
button.on_click(lambda _: setattr(slider, "value", slider.value + 1))
widgets.HBox([slider, button, said])"""
LOOP = """\
print("looping")
while True:
    pass"""
VARIABLE = """\
kept = globals().get("kept", 0) + 1
print("kept:", kept)"""
ASK = """\
print("hello", input("Who is there?"))"""
WAIT = """\
import asyncio
pressed = asyncio.Event()
waiting = widgets.Button(description="Go on")
waiting.on_click(lambda _: pressed.set())
display(waiting)
await pressed.wait()
print("went on")"""
FAIL = "1 / 0"
KILLED = """\
import os, time
time.sleep(0.5)
os.kill(os.getpid(), 9)"""

SOURCES = [HELLO, PICTURE, WIDGETS, LOOP, VARIABLE, ASK, WAIT, FAIL, KILLED]
CELL = {source: number for number, source in enumerate(SOURCES)}


@pytest.fixture(scope="module")
def page(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookPage]:
    """Open one notebook in one JupyterLab for all tests of this file."""
    with open_notebook(tmp_path_factory.mktemp("lab"), kernel_name, SOURCES) as page:
        yield page


def test_a_cell_shows_what_it_prints_and_its_last_value(page: NotebookPage) -> None:
    text = page.run(CELL[HELLO])
    assert "Hello from unstuck" in text
    assert "quince" in text


def test_a_plot_is_a_picture_in_the_page(page: NotebookPage) -> None:
    page.run(CELL[PICTURE])
    assert page.image_width(CELL[PICTURE]) > 100


def test_a_traceback_names_the_error(page: NotebookPage) -> None:
    assert "ZeroDivisionError" in page.run(CELL[FAIL])


def test_moving_a_slider_calls_back_into_the_kernel(page: NotebookPage) -> None:
    page.run(CELL[WIDGETS])
    page.move_slider(CELL[WIDGETS], "ArrowRight")
    page.wait_for_text(CELL[WIDGETS], "now 4")


def test_a_button_moves_another_widget(page: NotebookPage) -> None:
    page.run(CELL[WIDGETS])
    page.click(CELL[WIDGETS], ".jupyter-button")
    page.wait_for_text(CELL[WIDGETS], "now 4")


def test_the_stop_button_ends_a_loop_and_variables_stay(page: NotebookPage) -> None:
    before = page.run(CELL[VARIABLE])
    page.start(CELL[LOOP])
    page.wait_for_text(CELL[LOOP], "looping")
    page.interrupt()
    page.wait_until_ended(CELL[LOOP])
    assert "KeyboardInterrupt" in page.text(CELL[LOOP])
    assert page.run(CELL[VARIABLE]) != before
    assert "kept: 1" not in page.text(CELL[VARIABLE])


def test_a_question_is_answered_in_the_page(page: NotebookPage) -> None:
    page.start(CELL[ASK])
    page.answer(CELL[ASK], "a quince")
    page.wait_until_ended(CELL[ASK])
    assert "hello a quince" in page.text(CELL[ASK])


@ours  # the button would not be heard before the cell has ended
def test_a_button_is_heard_by_the_cell_that_waits_for_it(page: NotebookPage) -> None:
    page.run(CELL[WIDGETS])
    page.start(CELL[WAIT])
    page.click(CELL[WAIT], ".jupyter-button")
    page.wait_until_ended(CELL[WAIT])
    assert "went on" in page.text(CELL[WAIT])


@ours  # others lose the process, the variables and the widgets
def test_a_button_made_before_a_killed_cell_still_works(page: NotebookPage) -> None:
    page.run(CELL[WIDGETS])
    page.run(CELL[VARIABLE])
    text = page.run(CELL[KILLED])
    assert "The variables are as they were before this cell" in text
    page.click(CELL[WIDGETS], ".jupyter-button")
    page.wait_for_text(CELL[WIDGETS], "now 4")
    assert page.run(CELL[VARIABLE]) != "kept: 1"


def test_the_restart_button_gives_a_fresh_kernel(page: NotebookPage) -> None:
    page.run(CELL[VARIABLE])
    assert "kept: 1" not in page.run(CELL[VARIABLE])
    page.restart()
    assert "kept: 1" in page.run(CELL[VARIABLE])
    assert page.prompt(CELL[VARIABLE]) == "[1]:"
