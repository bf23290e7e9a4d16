"""The broker's command line: connection file, settings, and what looks like IPython's options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from unstuck.config import Config, parse_settings
from unstuck.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Not compiled here: few kernels are given any of these, and it takes a millisecond of each start.
_TRAIT = r"(?s)--[A-Z]\w*\.\w+=.*"
_ALIASES = (
    r"--(profile-dir|ipython-dir|autocall|cache-size|colors|theme|ext|gui|logappend|logfile"
    r"|matplotlib|pylab)"
)
_FLAGS = r"--((no-)?(autoindent|automagic|color-info|ignore-cwd|pdb|pprint)|nosep)"
"""IPython's short names, as they stand in kernelspecs that were written for ipykernel."""
_MAY_BE_BARE = ("--matplotlib", "--pylab")
_IGNORED = r"--(debug|quiet|log-level=.*|logappname=.*|no-secure)"
"""Of ipykernel; servers and tests pass them to any Python kernel."""


class Options(Struct, frozen=True):
    """What the command line says."""

    config: Config
    connection_file: str | None = None
    launcher_pid: int | None = None
    """The process whose end is the kernel's end, where a KernelManager has named itself."""


def parse(
    arguments: list[str], environment: Mapping[str, str], parent: int | None = None
) -> Options:
    """Read the command line, and from the environment who has launched us.

    Args:
        arguments: without the program's name.
        environment: the process's.
        parent: our parent when we started; a launcher that is another process is not watched, since
            its number may mean somebody else here (a container, a wrapper that went away).

    Raises:
        ConfigError: an unknown option, one without its value, or a bad setting.
    """
    pairs: list[str] = []
    connection_file: str | None = None
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        if name in ("-f", "--connection-file", "--set", "--f"):
            if not equals:
                value = _value_of(name, waiting)
            if name == "--set":
                pairs.append(value)
            else:
                connection_file = value
        elif name == "--profile":
            pairs.append(f"profile={value if equals else _value_of(name, waiting)}")
        elif re.fullmatch(_ALIASES, name):
            pairs.append(f"ipython_arguments={_with_value(argument, waiting)}")
        elif re.fullmatch(_TRAIT, argument) or re.fullmatch(_FLAGS, argument):
            pairs.append(f"ipython_arguments={argument}")
        elif not re.fullmatch(_IGNORED, argument):
            raise ConfigError(f"unknown option {argument!r}; see --help")
    # jupyter_client sets it, unless the kernel shall outlive its launcher.
    launcher = environment.get("JPY_PARENT_PID", "")
    is_parent = launcher.isdecimal() and int(launcher) == parent
    return Options(parse_settings(pairs), connection_file, parent if is_parent else None)


def _value_of(name: str, waiting: list[str]) -> str:
    if not waiting:
        raise ConfigError(f"option {name} needs a value")
    return waiting.pop(0)


def _with_value(argument: str, waiting: list[str]) -> str:
    """Join an option with its value, where that is the next argument."""
    if "=" in argument:
        return argument
    if argument in _MAY_BE_BARE and (not waiting or waiting[0].startswith("-")):
        return argument
    return f"{argument}={_value_of(argument, waiting)}"
