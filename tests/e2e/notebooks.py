"""Notebooks for tests, as files.

nbformat is typed in part only: what is not is asked here, through `Any`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import nbformat
from nbformat import NotebookNode, v4

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAIT_S = 30.0

T = TypeVar("T")

_format: Any = nbformat
_v4: Any = v4


def code(source: str, **metadata: object) -> NotebookNode:
    """Make a code cell."""
    return cast("NotebookNode", _v4.new_code_cell(source, metadata=metadata))


def markdown(source: str) -> NotebookNode:
    """Make a cell of text."""
    return cast("NotebookNode", _v4.new_markdown_cell(source))


def notebook_of(*cells: NotebookNode | str, **metadata: object) -> NotebookNode:
    """Make a notebook; a string is a code cell."""
    made = [code(cell) if isinstance(cell, str) else cell for cell in cells]
    return cast("NotebookNode", _v4.new_notebook(cells=made, metadata=metadata))


def stdout(text: str) -> NotebookNode:
    """Make an output as text on stdout would."""
    return cast("NotebookNode", _v4.new_output("stream", name="stdout", text=text))


def save(path: Path, *cells: NotebookNode | str, **metadata: object) -> Path:
    """Write a notebook; a string is a code cell."""
    path.write_text(_format.writes(notebook_of(*cells, **metadata)))
    return path


def load(path: Path) -> NotebookNode:
    """Read a notebook, and see that it is valid."""
    notebook = cast("NotebookNode", _format.read(path, as_version=4))
    nbformat.validate(notebook)
    return notebook


def wait_for(fact: Callable[[], T]) -> T:
    """Wait until ``fact`` is true; give what it is."""
    end = time.monotonic() + WAIT_S
    while not (value := fact()):
        assert time.monotonic() < end, "the fact did not come"
        time.sleep(0.02)
    return value
