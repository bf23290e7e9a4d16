"""A notebook open in a browser, with everything that this needs started and ended again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from browser import browser as chromium
from browser import lab
from browser.browser import Browser
from browser.lab import LabServer, write_notebook
from browser.notebook import NotebookPage

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from browser.lab import Cell


@contextmanager
def open_notebook(
    folder: Path, kernel: str, sources: Sequence[str | Cell], *, name: str = "session"
) -> Generator[NotebookPage]:
    """Open a notebook with these cells in a JupyterLab of its own; skip where that cannot be."""
    if missing := chromium.missing_parts() + lab.missing_parts():
        pytest.skip(f"no browser session without: {', '.join(missing)}")
    server = LabServer(folder)
    try:
        write_notebook(server.notebooks / f"{name}.ipynb", kernel, sources)
        browser = Browser(folder)
        try:
            yield NotebookPage(browser, f"{server.url}lab/tree/{name}.ipynb")
        finally:
            browser.close()
    finally:
        server.close()
