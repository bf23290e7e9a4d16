"""The pictures of the docs, taken of the real thing; only when ``UNSTUCK_TAKE_PICTURES`` is set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from browser.browser import ROOT
from browser.session import open_notebook
from e2e.spec import ours, spec_for_tests, write_spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TAKE = "UNSTUCK_TAKE_PICTURES"
IMAGES = ROOT / "docs" / "images"
pytestmark = [ours, pytest.mark.skipif(TAKE not in os.environ, reason=f"{TAKE} is not set")]

TABLE = """\
import pandas as pd
prices = pd.DataFrame({"fruit": ["apple", "quince"], "price": [1.2, 2.75]})
prices"""
PLOT = """\
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(5, 1.6))
axes.bar(prices.fruit, prices.price);"""
WIDGETS = """\
import ipywidgets as widgets
slider = widgets.IntSlider(value=4, max=10, description="quinces")
said = widgets.Label("nothing yet")
slider.observe(lambda change: setattr(said, "value", f"now {change.new}"), "value")
widgets.HBox([slider, said])"""
LOOP = """\
while True:
    pass"""

HUNG = """\
from itertools import repeat
max(repeat(1))  # C code that never ends and never looks at a signal"""
NEXT = """print("The next cell runs.")"""
MOMENT_MS = 2200


@pytest.fixture
def unstuck(private_folders: Path) -> str:
    """Write a kernelspec under the name that people see."""
    spec = spec_for_tests()
    spec["display_name"] = "Python 3 (unstuck)"
    return write_spec(private_folders / "path", "unstuck", spec)


def test_the_picture_of_jupyterlab(unstuck: str, tmp_path: Path) -> None:
    sources = [TABLE, PLOT, WIDGETS, LOOP]
    with open_notebook(tmp_path, unstuck, sources, name="quinces") as page:
        for number in range(3):
            page.run(number)
        page.move_slider(2, "ArrowRight")
        page.wait_for_text(2, "now 5")
        page.start(3)
        page.wait_until_running(3)
        page.interrupt()
        page.wait_until_ended(3)
        page.picture(IMAGES / "jupyterlab.png")


def test_the_recording_of_a_hung_cell_that_is_interrupted(unstuck: str, tmp_path: Path) -> None:
    shots = [tmp_path / f"{moment}.png" for moment in range(5)]
    with open_notebook(tmp_path, unstuck, [HUNG, NEXT], name="hung") as page:
        page.resize(1000, 620)
        page.picture(shots[0])
        page.start(0)
        page.wait_until_running(0)
        page.picture(shots[1])
        page.interrupt()
        page.wait_for_text(0, "interrupt again")
        page.picture(shots[2])
        page.interrupt()
        page.wait_until_ended(0)
        page.accept_dialog()  # It says that the kernel was restarted.
        page.wait_until_idle()
        page.picture(shots[3])
        assert "The next cell runs." in page.run(1)
        page.picture(shots[4])
    write_recording(shots, IMAGES / "interrupt.gif")


def write_recording(shots: Sequence[Path], target: Path) -> None:
    """Join pictures to one that moves, and rests at its end."""
    from PIL import Image  # it comes with matplotlib

    frames = [Image.open(shot).convert("P", palette=Image.Palette.ADAPTIVE) for shot in shots]
    durations = [MOMENT_MS] * (len(frames) - 1) + [2 * MOMENT_MS]
    frames[0].save(
        target, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
    )
