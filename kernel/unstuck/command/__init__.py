"""The command ``unstuck``: one file a command, imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from typing import IO, TYPE_CHECKING, Any

import click
from typing_extensions import override

from unstuck.errors import ConfigError
from unstuck.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "install": "Make the kernel appear in Jupyter.",
    "uninstall": "Remove a kernelspec of ours.",
    "list": "Show the kernelspecs of ours.",
    "run": "Run notebooks without a frontend.",
    "ps": "Show the kernels that run, and what they do.",
    "stack": "Show where the threads of a running kernel are.",
    "interrupt": "Interrupt what runs in a kernel.",
    "restart": "Restart a kernel in place.",
    "kill": "End a kernel.",
    "checkpoint": "Save a kernel's variables to a file, and load them.",
    "doctor": "Check this machine and say what is wrong.",
    "version": "Show the versions that matter in a report.",
}
"""Each command with its short help; ``x`` is ``x_command`` in the module of its name."""

_MODULES = {"list": "specs"}  # a module called list would read like the type


class BadInput(click.ClickException):
    """One line for the user, and exit code 2."""

    exit_code = 2

    @override
    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"unstuck: {self.format_message()}", file=file or sys.stderr, color=None)


class Commands(click.Group):
    """Find a command by its name, and turn errors of ours into one line."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{_MODULES.get(cmd_name, cmd_name)}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click would import every command for this.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise BadInput(str(error)) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: unstuck install && jupyter lab",
)
@click.version_option(__version__, "-V", "--version", prog_name="unstuck")
def main() -> None:
    """The Jupyter kernel for Python that never gets stuck."""


def examples(*lines: str) -> str:
    """Lay out the examples at the end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def say(lines: Sequence[str]) -> None:
    """Print lines for a person on stdout."""
    for line in lines:
        click.echo(line)
