"""``unstuck list``: the kernelspecs of ours, and whether they would start."""

from __future__ import annotations

import click

from unstuck.command import examples, say
from unstuck.kernelspec import InstalledSpec, installed_specs


@click.command("list", epilog=examples("unstuck list"))
def list_command() -> None:
    """Show the kernelspecs of ours that Jupyter finds from here."""
    specs = list(installed_specs())
    if not specs:
        say(["No kernelspec of ours is installed; 'unstuck install' makes one."])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True)
    for title in ("Name", "Display name", "Where", "Python", "Settings"):
        table.add_column(title, overflow="fold")  # half a path is of no use
    for spec in specs:
        where = str(spec.folder)
        if spec.shadowed_by is not None:
            where += f"\nnot used: {spec.shadowed_by} comes first"
        table.add_row(spec.name, spec.display_name, where, _python(spec), _settings(spec))
    Console(markup=False, highlight=False).print(table)


def _python(spec: InstalledSpec) -> str:
    return str(spec.python) if spec.python_exists else f"{spec.python}\nis gone: install again"


def _settings(spec: InstalledSpec) -> str:
    variables = [f"{name}={value} (environment)" for name, value in spec.env.items()]
    return "\n".join([*spec.settings, *variables])
