"""``unstuck ps``: the kernels that run on this machine, what they run, and what they cost."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from unstuck.command import examples, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from unstuck.running import RunningKernel
    from unstuck.vitals import Running, Vitals

    Row = tuple[RunningKernel, Vitals]

_MAX_LOOKS = 16
_REFRESH_S = 1.0
_COLOURS = {
    "idle": "green",
    "busy": "yellow",
    "interrupting": "yellow",
    "hung": "bold red",
    "no answer": "bold red",
    "dead": "dim",
}


@click.command(
    "ps", epilog=examples("unstuck ps", "unstuck ps --once", "unstuck ps --json | jq '.[].state'")
)
@click.option("--once", is_flag=True, help="Print the table once; done where there is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, once, as JSON.")
@click.option("--all", "stale", is_flag=True, help="Stale connection files too.")
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each kernel may take to answer.",
)
def ps_command(*, once: bool, as_json: bool, stale: bool, deadline_s: float) -> None:
    """Show the kernels of this user: state, running cell and for how long, CPU, memory, process.

    "hung" is a worker that does not answer because C code holds the GIL; "no answer" a kernel
    that says nothing at all.
    """
    if as_json:
        say([json.dumps([_record(*row) for row in _rows(stale, deadline_s)], indent=1)])
    elif once or not sys.stdout.isatty():
        _print_once(stale=stale, deadline_s=deadline_s)
    else:
        _follow(stale=stale, deadline_s=deadline_s)


def _rows(stale: bool, deadline_s: float) -> list[Row]:
    """Look at all kernels at once."""
    from unstuck.running import find_kernels
    from unstuck.vitals import look

    kernels = [kernel for kernel in find_kernels() if stale or kernel.listening or kernel.pid]
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


def _print_once(*, stale: bool, deadline_s: float) -> None:
    from rich.console import Console

    rows = _rows(stale, deadline_s)
    if rows:
        Console(markup=False, highlight=False).print(_table(rows))
    else:
        say(["No kernel runs."])


def _follow(*, stale: bool, deadline_s: float) -> None:
    """Renew the table until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console: Console = Console(markup=False, highlight=False)
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_table(_rows(stale, deadline_s)), refresh=True)
                time.sleep(_REFRESH_S)
    except KeyboardInterrupt:
        return


def _table(rows: list[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("Kernel", "Notebook", "State", "Cell"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("For", "CPU", "Memory", "PID"):
        table.add_column(name, justify="right", no_wrap=True)
    for kernel, vitals in rows:
        cell, seconds = _cell(vitals)
        table.add_row(
            Text(kernel.short_id),
            Text(kernel.notebook.name if kernel.notebook else kernel.connection_file.name),
            Text(vitals.state, style=_COLOURS.get(vitals.state, "")),
            Text(cell),
            seconds,
            "" if vitals.cpu_percent is None else f"{vitals.cpu_percent:.0f} %",
            "" if vitals.memory_bytes is None else f"{vitals.memory_bytes / 1e6:,.0f} MB",
            "" if vitals.pid is None else str(vitals.pid),
        )
    return table


def _cell(vitals: Vitals) -> tuple[str, str]:
    """Show the cell that has run longest, and how many more there are; what waits, too."""
    from unstuck.vitals import HUNG

    if not vitals.running:
        return "", _duration(vitals.hung_s) if vitals.state == HUNG else ""
    longest = max(vitals.running, key=lambda one: (one.code is not None, one.seconds))
    text = _name(longest)
    if more := len(vitals.running) - 1:
        text += f" (+{more})"
    if vitals.waiting:
        text += f" ({vitals.waiting} waiting)"
    return text, _duration(longest.seconds)


def _name(one: Running) -> str:
    count = "[*] " if one.execution_count is None else f"[{one.execution_count}] "
    text = one.msg_type if one.code is None else count + one.code
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _duration(seconds: float | None) -> str:
    """Write a time as a person reads it: 4.2 s, 3:07, 2:00:01."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
