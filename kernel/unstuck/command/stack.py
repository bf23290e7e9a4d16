"""``unstuck stack``: where all threads of a running kernel are, also with the GIL held."""

from __future__ import annotations

import click

from unstuck.command import examples
from unstuck.command.target import ANSWER_S, Failed, kernel_argument, reached


@click.command(
    "stack",
    epilog=examples("unstuck stack analysis.ipynb", "unstuck stack 3f1c", "unstuck stack k.json"),
)
@kernel_argument
def stack_command(*, name: str) -> None:
    """Show the Python stacks of all threads of a running kernel.

    KERNEL is a kernel's id or its beginning, a notebook's name or path, or a connection file.
    """
    with reached(name) as target:
        instead = "'py-spy dump --pid PID' shows a process's stacks"
        target.require_ours(instead)
        reply = target.control.ask("stack_request", deadline_s=ANSWER_S)
        if reply.get("status") != "ok":
            raise Failed(f"{target.kernel.describe()} gave no stack: {reply.get('evalue', reply)}")
        click.echo(str(reply["stack"]))
