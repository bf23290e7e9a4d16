"""``unstuck version``: what a bug report needs to say."""

from __future__ import annotations

import click

from unstuck.command import examples, say
from unstuck.version import __version__

PACKAGES = ("ipython", "pyzmq", "jupyter_client", "anyio", "msgspec")


def installed_version(package: str) -> str:
    """Give the version of a distribution, or say that it is missing."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@click.command("version", epilog=examples("unstuck version"))
def version_command() -> None:
    """Show the versions of unstuck, Python and what they stand on."""
    import platform
    import sys

    rows = {
        "unstuck": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        **{package: installed_version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "executable": sys.executable,
    }
    width = max(map(len, rows))
    say([f"{name:<{width}}  {value}" for name, value in rows.items()])
