"""Options that several commands take, and what they mean."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from unstuck.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


def settings_option(command: F) -> F:
    """Add ``--set NAME=VALUE``, given as often as there are settings."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A setting of the kernel, for example interrupt_grace_s=5. Repeatable.",
    )(command)


def place_options(command: F) -> F:
    """Add the three options that say below which folder a kernelspec lives."""
    for add in (
        click.option(
            "--sys-prefix",
            is_flag=True,
            help=f"In the environment of this Python: {sys.prefix}.",
        ),
        click.option(
            "--prefix",
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="In another environment, by its folder.",
        ),
        click.option("--user", is_flag=True, help="For the current user (the default)."),
    ):
        command = add(command)
    return command


def chosen_prefix(*, user: bool, prefix: Path | None, sys_prefix: bool) -> Path | None:
    """Give the environment that the place options name; None is the user's own folder.

    Raises:
        ConfigError: more than one place, or a prefix that is no folder.
    """
    if user + (prefix is not None) + sys_prefix > 1:
        raise ConfigError("choose one of --user, --prefix and --sys-prefix")
    if sys_prefix:
        return Path(sys.prefix)
    if prefix is not None and not prefix.is_dir():
        raise ConfigError(f"--prefix {prefix}: there is no such folder")
    return prefix
