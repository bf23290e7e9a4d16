"""What faulthandler writes, made readable: the thread of the cell, without our own frames.

A dump has a block for each thread, parted by blank lines, with the most recent call first. The
thread that took the signal is "Current"; for a signal to the process that is the main thread.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Not compiled here: most kernels never show a stack, and it takes half a millisecond of each start.
_FRAME = r'  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)'
_CELL = r"/ipykernel_\d+/\d+\.py$"
"""The name that a cell is compiled under: no such file exists, and nobody knows it by its hash."""
_CELL_BODY = r'/ipykernel_\d+/\d+\.py", line \d+ in <module>'
_FATAL = "Fatal Python error"
_LIBRARY = r"site-packages|lib/python\d|<frozen|/unstuck(_worker|_broker)?/"
_OURS = r"/unstuck(_worker|_broker)?/|/asyncio/|<frozen runpy>|/IPython/core/inter"


def shorten(stack: str) -> str:
    """Keep what a user has to know of a dump: a fatal error's name, and the frames of the cell.

    Args:
        stack: as faulthandler writes it, or words that say why there is none, which stay.
    """
    current = _current_block(stack)
    lines = current.splitlines()
    kept = [line for line in lines if not (_match(line) and re.search(_OURS, line))]
    if not any(map(_match, kept)):
        kept = lines
    first = stack.split("\n", 1)[0]
    fatal = [first, ""] if first.startswith(_FATAL) else []
    return "\n".join(fatal + _name_cells(kept))


def locate(stack: str) -> str:
    """Say in one line where the cell is: the innermost frame, and the line of the cell."""
    matches = map(_match, _current_block(stack).splitlines())
    frames = [match for match in matches if match is not None]
    if not frames:
        return "the worker gives no Python stack"
    inner = frames[0]
    cell = next((frame for frame in frames if not re.search(_LIBRARY, frame["file"])), inner)
    place = _place(cell["file"], frames)
    function = "" if cell["function"] == "<module>" else f"{cell['function']} in "
    where = f"C code called from line {cell['line']} of {function}{place}"
    if inner is not cell:
        where += f", at {inner['function']} ({inner['file']}:{inner['line']})"
    return where


def _match(line: str) -> re.Match[str] | None:
    return re.fullmatch(_FRAME, line)


def _name_cells(lines: list[str]) -> list[str]:
    """Say which cell a frame is in, instead of a file that does not exist."""
    frames = [frame for frame in map(_match, lines) if frame is not None]
    return [_name_cell(line, frames) for line in lines]


def _name_cell(line: str, frames: Sequence[re.Match[str]]) -> str:
    frame = _match(line)
    if frame is None or not re.search(_CELL, frame["file"]):
        return line
    place = _place(frame["file"], frames).capitalize()
    return f"  {place}, line {frame['line']} in {frame['function']}"


def _place(file: str, frames: Sequence[re.Match[str]]) -> str:
    """Name a file among these frames: the cell that runs is the one whose own lines are there."""
    if not re.search(_CELL, file):
        return file
    running = {frame["file"] for frame in frames if frame["function"] == "<module>"}
    return "this cell" if file in running else "another cell"


def _current_block(stack: str) -> str:
    """Find the block of the thread that took the signal; without one, the last.

    A signal is taken by the main thread. Where that runs no cell, it is the one of a thread cell.
    """
    blocks = stack.split("\n\n")
    current = next((block for block in blocks if block.startswith("Current thread")), blocks[-1])
    if blocks[0].startswith(_FATAL) or re.search(_CELL_BODY, current):
        return current
    return next((block for block in blocks if re.search(_CELL_BODY, block)), current)
