"""What faulthandler writes, made readable: the thread of the cell, without our own frames.

A dump has a block for each thread, parted by blank lines, with the most recent call first. The
thread that took the signal is "Current"; for a signal to the process that is the main thread.
"""

from __future__ import annotations

import re

_FRAME = re.compile(r'  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)')
_LIBRARY = re.compile(r"site-packages|lib/python\d|<frozen|/unstuck(_worker|_broker)?/")
_OURS = re.compile(r"/unstuck(_worker|_broker)?/|/asyncio/|<frozen runpy>|/IPython/core/inter")


def shorten(stack: str) -> str:
    """Keep what a user has to know of a dump: a fatal error's name, and the frames of the cell.

    Args:
        stack: as faulthandler writes it, or words that say why there is none, which stay.
    """
    current = _current_block(stack)
    lines = current.splitlines()
    kept = [line for line in lines if not (_FRAME.fullmatch(line) and _OURS.search(line))]
    if not any(_FRAME.fullmatch(line) for line in kept):
        kept = lines
    first = stack.split("\n", 1)[0]
    fatal = [first, ""] if first.startswith("Fatal Python error") else []
    return "\n".join(fatal + kept)


def locate(stack: str) -> str:
    """Say in one line where the cell is: the innermost frame, and the line of the cell."""
    matches = map(_FRAME.fullmatch, _current_block(stack).splitlines())
    frames = [match for match in matches if match is not None]
    if not frames:
        return "the worker gives no Python stack"
    inner = frames[0]
    cell = next((frame for frame in frames if not _LIBRARY.search(frame["file"])), inner)
    where = f"C code called from line {cell['line']} of {cell['function']} in {cell['file']}"
    if inner is not cell:
        where += f", at {inner['function']} ({inner['file']}:{inner['line']})"
    return where


def _current_block(stack: str) -> str:
    """Find the block of the thread that took the signal; without one, the last."""
    blocks = stack.split("\n\n")
    current = (block for block in blocks if block.startswith("Current thread"))
    return next(current, blocks[-1])
