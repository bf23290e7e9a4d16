"""The broker's command line: connection file, settings, and what looks like IPython's options."""

from __future__ import annotations

import re

from msgspec import Struct

from unstuck.config import Config, parse_settings
from unstuck.errors import ConfigError

_TRAIT = re.compile(r"--[A-Z]\w*\.\w+=.*", re.DOTALL)
_IGNORED = re.compile(r"--(debug|quiet|log-level=.*|logappname=.*|no-secure)")
"""Of ipykernel; servers and tests pass them to any Python kernel."""


class Options(Struct, frozen=True):
    """What the command line says."""

    config: Config
    connection_file: str | None = None


def parse(arguments: list[str]) -> Options:
    """Read the command line.

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
                if not waiting:
                    raise ConfigError(f"option {name} needs a value")
                value = waiting.pop(0)
            if name == "--set":
                pairs.append(value)
            else:
                connection_file = value
        elif _TRAIT.fullmatch(argument):
            pairs.append(f"ipython_arguments={argument}")
        elif not _IGNORED.fullmatch(argument):
            raise ConfigError(f"unknown option {argument!r}; see --help")
    return Options(parse_settings(pairs), connection_file)
