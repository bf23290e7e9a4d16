"""``unstuck install``: write a kernelspec and say where it is and what to do next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from unstuck.command import examples, say
from unstuck.command.options import chosen_prefix, place_options, settings_option
from unstuck.kernelspec import (
    DEFAULT_NAME,
    SpecOptions,
    check_name,
    check_platform,
    install_spec,
    kernels_folder,
    read_spec,
    searched_folders,
)

if TYPE_CHECKING:
    from pathlib import Path

_NEEDS_US = (
    "Only a Jupyter server whose environment has unstuck shows it: restarts are made by its"
    " provisioner."
)


@click.command(
    "install",
    epilog=examples(
        "unstuck install",
        "unstuck install --sys-prefix --name steady --display-name 'Python (steady)'",
        "unstuck install --env OMP_NUM_THREADS 4 --set cell_timeout_s=600",
    ),
)
@place_options
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="The name Jupyter uses.")
@click.option("--display-name", default="", help="The name people see.")
@click.option(
    "--env",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="An environment variable of the kernel. Repeatable.",
)
@click.option(
    "--provisioner",
    is_flag=True,
    help="Let a server's restart button restart in place. Only servers that can import unstuck"
    " show such a kernel.",
)
@settings_option
@click.option("--replace", is_flag=True, help="Replace another kernel's kernelspec of that name.")
def install_command(
    *,
    user: bool,
    prefix: Path | None,
    sys_prefix: bool,
    name: str,
    display_name: str,
    env: tuple[tuple[str, str], ...],
    provisioner: bool,
    settings: tuple[str, ...],
    replace: bool,
) -> None:
    """Make the kernel of this Python appear in Jupyter, for the current user by default."""
    check_platform()
    folder = kernels_folder(prefix=chosen_prefix(user=user, prefix=prefix, sys_prefix=sys_prefix))
    options = SpecOptions(
        name=name,
        display_name=display_name,
        env=dict(env),
        settings=settings,
        provisioner=provisioner,
    )
    home = install_spec(options, folder, replace=replace)
    spec = read_spec(home) or {}
    say(
        [
            f"Installed {spec.get('display_name')!r} as {home}",
            f"It starts {sys.executable}.",
            *([_NEEDS_US] if provisioner else []),
            *_what_next(folder, check_name(name)),
        ]
    )


def _what_next(folder: Path, name: str) -> list[str]:
    """Say how the kernel is found, or why it will not be."""
    searched = searched_folders()
    if folder not in searched:
        data = folder.parent
        return [
            "The Jupyter of this Python does not look there; one that is installed in"
            f" {data.parents[1]} does, and any with JUPYTER_PATH={data}."
        ]
    for earlier in searched[: searched.index(folder)]:
        if read_spec(earlier / name) is not None:
            return [
                f"Jupyter will still take {earlier / name}, which comes first: remove that one."
            ]
    return ["Choose it in JupyterLab's launcher, or: jupyter console --kernel " + name]
