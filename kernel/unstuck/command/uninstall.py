"""``unstuck uninstall``: remove a kernelspec of ours, and only of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unstuck.command import examples, say
from unstuck.command.options import chosen_prefix, place_options
from unstuck.errors import ConfigError
from unstuck.kernelspec import (
    DEFAULT_NAME,
    InstalledSpec,
    check_name,
    installed_specs,
    kernels_folder,
    read_spec,
    uninstall_spec,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    "uninstall",
    epilog=examples("unstuck uninstall", "unstuck uninstall --name steady --sys-prefix -y"),
)
@place_options
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="The kernelspec's name.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def uninstall_command(
    *, user: bool, prefix: Path | None, sys_prefix: bool, name: str, yes: bool
) -> None:
    """Remove a kernelspec of ours; the installed package and running kernels stay."""
    folder = kernels_folder(prefix=chosen_prefix(user=user, prefix=prefix, sys_prefix=sys_prefix))
    spec = _find(check_name(name), folder)
    if not yes and not click.confirm(f"Remove {spec.folder}?"):
        say(["Nothing removed."])
        return
    uninstall_spec(spec)
    say([f"Removed {spec.folder}"])


def _find(name: str, folder: Path) -> InstalledSpec:
    for spec in installed_specs([folder]):
        if spec.name == name:
            return spec
    if read_spec(folder / name) is not None:
        raise ConfigError(
            f"{folder / name} is another kernel's: 'jupyter kernelspec remove {name}'"
        )
    elsewhere = [spec.folder for spec in installed_specs() if spec.name == name]
    hint = f"; there is {elsewhere[0]}" if elsewhere else "; 'unstuck list' shows what there is"
    raise ConfigError(f"no kernelspec {name!r} of ours is in {folder}{hint}")
