"""``unstuck ps``: the kernels that run on this machine, what they run, and what they cost."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from unstuck.command import examples, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table

    from unstuck.running import RunningKernel
    from unstuck.vitals import Running, Vitals

    Row = tuple[RunningKernel, Vitals]

_MAX_LOOKS = 16
_REFRESH_S = 1.0
_PIPE_COLUMNS = 500
"""Nothing is cut where a program reads the table."""
_COLUMNS = ("Kernel", "Notebook", "State", "Cell", "For", "CPU", "Memory", "PID")
_COLOURS = {
    "idle": "green",
    "busy": "yellow",
    "interrupting": "yellow",
    "hung": "bold red",
    "no answer": "bold red",
    "dead": "dim",
}


@click.command(
    "ps",
    epilog=examples(
        "unstuck ps", "unstuck ps analysis.ipynb --once", "unstuck ps --json | jq '.[].state'"
    ),
)
@click.argument("names", metavar="[KERNEL]...", nargs=-1)
@click.option("--once", is_flag=True, help="Print the table once; done where there is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, once, as JSON.")
@click.option("--all", "stale", is_flag=True, help="Stale connection files too.")
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each kernel may take to answer.",
)
def ps_command(
    *, names: tuple[str, ...], once: bool, as_json: bool, stale: bool, deadline_s: float
) -> None:
    """Show the kernels of this user, or those that are named, and what they do.

    A KERNEL is a kernel's id or its beginning, a notebook's name or path, or a connection file.
    "hung" is a worker that does not answer because C code holds the GIL; "no answer" a kernel
    that says nothing at all.
    """

    def rows() -> list[Row]:
        return _look(_chosen(names, stale=stale), deadline_s)

    if as_json:
        say([json.dumps([_record(*row) for row in rows()], indent=1)])
    elif once or not sys.stdout.isatty():
        _print_once(rows())
    else:
        _follow(rows)


def _chosen(names: tuple[str, ...], *, stale: bool) -> list[RunningKernel]:
    from unstuck.running import choose, find_kernels

    if names:
        return [choose(name) for name in names]
    return [kernel for kernel in find_kernels() if stale or kernel.runs]


def _look(kernels: list[RunningKernel], deadline_s: float) -> list[Row]:
    """Look at all kernels at once."""
    from unstuck.vitals import look

    with ThreadPoolExecutor(_MAX_LOOKS) as pool:
        looks = pool.map(partial(look, deadline_s=deadline_s), kernels)
        return list(zip(kernels, looks, strict=True))


def _record(kernel: RunningKernel, vitals: Vitals) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "kernel_id": kernel.kernel_id,
        "notebook": None if kernel.notebook is None else str(kernel.notebook),
        "connection_file": str(kernel.connection_file),
        **asdict(vitals),
    }


def _print_once(rows: list[Row]) -> None:
    from rich.console import Console

    if rows:
        width = None if sys.stdout.isatty() else _PIPE_COLUMNS
        Console(width=width, markup=False, highlight=False).print(_table(rows))
    else:
        say(["No kernel runs."])


def _follow(rows: Callable[[], list[Row]]) -> None:
    """Renew the table until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console: Console = Console(markup=False, highlight=False)
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_table(rows()), refresh=True)
                time.sleep(_REFRESH_S)
    except KeyboardInterrupt:
        return


def _table(rows: list[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    texts = [_texts(*row) for row in rows]
    for at, name in enumerate(_COLUMNS):
        width = max(len(name), *(len(line[at]) for line in texts))
        # Where the terminal is narrow, only these two are cut.
        least = min(width, 12) if name in ("Notebook", "Cell") else width
        right = at > _COLUMNS.index("Cell")
        justify: Literal["right", "left"] = "right" if right else "left"
        table.add_column(name, min_width=least, no_wrap=True, justify=justify)
    for line in texts:
        state = _COLUMNS.index("State")
        style = _COLOURS.get(line[state], "")
        table.add_row(*(Text(t, style=style if at == state else "") for at, t in enumerate(line)))
    return table


def _texts(kernel: RunningKernel, vitals: Vitals) -> list[str]:
    """Write a row, in the order of `_COLUMNS`."""
    cell, seconds = _cell(vitals)
    name = kernel.notebook.name if kernel.notebook else kernel.connection_file.name
    return [
        kernel.short_id,
        _printable(name),
        vitals.state,
        _printable(cell),
        seconds,
        "" if vitals.cpu_percent is None else f"{vitals.cpu_percent:.0f} %",
        "" if vitals.memory_bytes is None else f"{vitals.memory_bytes / 1e6:,.0f} MB",
        "" if vitals.pid is None else str(vitals.pid),
    ]


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _cell(vitals: Vitals) -> tuple[str, str]:
    """Show the cell that has run longest, and how many more there are; what waits, too."""
    from unstuck.vitals import HUNG

    if not vitals.running:
        return "", duration(vitals.hung_s) if vitals.state == HUNG else ""
    longest = max(vitals.running, key=lambda one: (one.code is not None, one.seconds))
    text = _name(longest)
    if more := len(vitals.running) - 1:
        text += f" (+{more})"
    if vitals.waiting:
        text += f" ({vitals.waiting} waiting)"
    return text, duration(longest.seconds)


def _name(one: Running) -> str:
    count = "[*] " if one.execution_count is None else f"[{one.execution_count}] "
    return one.msg_type if one.code is None else count + one.code


def duration(seconds: float | None) -> str:
    """Write a time as a person reads it: 4.2 s, 3:07, 2:00:01."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
