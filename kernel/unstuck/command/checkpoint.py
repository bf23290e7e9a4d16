"""``unstuck checkpoint``: save a running kernel's variables to a file, load them, look into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unstuck.command import examples
from unstuck.command.target import Failed, deadline_option, kernel_argument, reached
from unstuck.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CALL = "__import__('unstuck_worker.checkpoint', fromlist=['x']).{}(get_ipython(), {!r})"
_NEW = click.Path(dir_okay=False, path_type=Path)
_OLD = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.group(
    "checkpoint",
    epilog=examples(
        "unstuck checkpoint save analysis.ipynb analysis.ckpt",
        "unstuck checkpoint info analysis.ckpt",
    ),
)
def checkpoint_command() -> None:
    """Save the variables of a running kernel to a file, load them, or tell what is in a file.

    Loading runs code of the file: load only what you have saved yourself.
    """


@checkpoint_command.command(
    "save", epilog=examples("unstuck checkpoint save 3f1c /backup/3f1c.ckpt")
)
@kernel_argument
@click.argument("file", metavar="FILE", type=_NEW)
@deadline_option(600.0, "for the file")
def save(*, name: str, file: Path, deadline_s: float) -> None:
    """Save a kernel's variables; a cell that computes ends first.

    KERNEL is a kernel's id or its beginning, a notebook's name or path, or a connection file.
    """
    _ask(name, "save_path", file, deadline_s)


@checkpoint_command.command(
    "load", epilog=examples("unstuck checkpoint load analysis.ipynb analysis.ckpt")
)
@kernel_argument
@click.argument("file", metavar="FILE", type=_OLD)
@deadline_option(600.0, "for the variables")
def load(*, name: str, file: Path, deadline_s: float) -> None:
    """Load a file of your own into a kernel; this runs code of the file.

    KERNEL is a kernel's id or its beginning, a notebook's name or path, or a connection file.
    """
    _ask(name, "load_path", file, deadline_s)


@checkpoint_command.command("info", epilog=examples("unstuck checkpoint info analysis.ckpt"))
@click.argument("file", metavar="FILE", type=_OLD)
def info(*, file: Path) -> None:
    """Check a file and tell what is in it; nothing of it runs."""
    from unstuck_worker.transplant.file import CheckpointError, read
    from unstuck_worker.transplant.summary import describe

    try:
        click.echo(describe(file, read(file)), nl=False)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error


def _ask(name: str, function: str, file: Path, deadline_s: float) -> None:
    """Have the kernel's worker do it: no other process ever reads or writes a session."""
    with reached(name) as target:
        target.require_ours("%store keeps single variables")
        content = {
            "code": "",
            "silent": True,
            "store_history": False,
            "user_expressions": {"text": _CALL.format(function, str(file.absolute()))},
        }
        reply = target.control.ask("execute_request", content, deadline_s=deadline_s)
        click.echo(_text_of(reply), nl=False)


def _text_of(reply: Mapping[str, Any]) -> str:
    """Give what the worker has to tell.

    Raises:
        Failed: it could not do it.
    """
    answer: Mapping[str, Any] = reply.get("user_expressions", {}).get("text", reply)
    if answer.get("status") != "ok":
        raise Failed(str(answer.get("evalue", answer)))
    import ast

    return str(ast.literal_eval(answer["data"]["text/plain"]))
