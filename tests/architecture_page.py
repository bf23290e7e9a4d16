"""Renew the lists of files in docs/architecture.md: ``python tests/architecture_page.py``.

A file's line is the first line of its docstring. The rest of the page is written by hand.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from imports import ALL, ROOT
from test_architecture import ARCHITECTURE, PURE

if TYPE_CHECKING:
    from pathlib import Path

_HEADING = re.compile(r"^#{3,4} (?P<folder>\S+)/: .*$", re.MULTILINE)


def summary(path: Path) -> str:
    """Give the first paragraph of a module's docstring, as one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = " ".join(text.split("\n\n")[0].split()).rstrip(".").replace("``", "`")
    return re.sub(r" \(docs/.*?\)", "", line)


def table(folder: Path) -> str:
    """List the modules of one folder; the pure ones have a mark."""
    rows = [
        f"| `{path.name}`{' °' if module in PURE else ''} | {summary(path)} |"
        for path, module in sorted((path, module) for module, path in ALL.items())
        if path.parent == folder and path.name != "__init__.py"
    ]
    return "\n".join(["| File | holds |", "|---|---|", *rows])


def renewed(page: str) -> str:
    """Give the page with all its tables made anew."""
    headings = list(_HEADING.finditer(page))
    start = page[: headings[0].start()]
    parts = [f"{match[0]}\n\n{table(ROOT / match['folder'])}\n" for match in headings]
    return start + "\n".join(parts)


if __name__ == "__main__":
    ARCHITECTURE.write_text(renewed(ARCHITECTURE.read_text(encoding="utf-8")), encoding="utf-8")
