"""IPython's configuration as ipykernel loads it: files, command line, extensions and start-up code.

IPython's own application machinery is loaded only when the user has something for it to do.
"""

# IPython's methods have no types.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.profiledir import ProfileDir, ProfileDirError
from IPython.paths import get_ipython_dir
from traitlets.config.loader import Config, ConfigError, DeferredConfigString, PyFileConfigLoader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unstuck_worker.shell import UnstuckShell

CONFIG_FILES = ("ipython_config.py", "ipython_kernel_config.py")
_START_UP = ("InteractiveShellApp", "IPKernelApp", "StoreMagics")
"""Sections of what happens at the start; the second names the connection file as well."""
_PLACES = {
    "profile-dir": "ProfileDir.location",
    "ipython-dir": "BaseIPythonApplication.ipython_dir",
}
_SHARED_FOLDERS = (Path("/usr/local/etc/ipython"), Path("/etc/ipython"))


class Profile:
    """One IPython profile: its directory, and everything that configures the shell."""

    def __init__(self, name: str, arguments: Iterable[str]) -> None:
        """Read the configuration files and arguments of the profile ``name``."""
        self.problems: list[str] = []
        """What could not be read; shown to the user, never fatal."""
        given = self._read_arguments(arguments)
        self.ipython_dir = _text(given.BaseIPythonApplication.get("ipython_dir"), get_ipython_dir())
        location = _text(given.ProfileDir.get("location"), "")
        self.directory = (
            ProfileDir(location=location) if location else _find_profile(self.ipython_dir, name)
        )
        self.config = self._read_files()
        self.config.merge(given)

    def _folders(self) -> list[Path]:
        """List where configuration may be, the most general first."""
        return [*_SHARED_FOLDERS, _environment_folder(), Path(self.directory.location)]

    def files(self) -> list[Path]:
        """List the configuration files that there are or might be."""
        return [folder / name for folder in self._folders() for name in CONFIG_FILES]

    def _read_files(self) -> Config:
        config = Config()
        for file in self.files():
            if file.is_file():
                try:
                    loader = PyFileConfigLoader(file.name, path=str(file.parent))
                    config.merge(loader.load_config())
                except Exception as error:  # noqa: BLE001  (user code)
                    self.problems.append(f"{file}: {type(error).__name__}: {error}")
        return config

    def _read_arguments(self, arguments: Iterable[str]) -> Config:
        """Read ``--Class.trait=value``, and IPython's own short names."""
        config = Config()
        rest: list[str] = []
        for argument in arguments:
            name, equals, value = argument.lstrip("-").partition("=")
            section, dot, trait = name.partition(".")
            if equals and dot and section and trait.isidentifier():
                config[section][trait] = DeferredConfigString(value)
            else:
                rest.append(argument)
        if rest:
            config.merge(self._read_short_arguments(rest))
        return config

    def _read_short_arguments(self, arguments: list[str]) -> Config:
        from IPython.core.shellapp import shell_aliases, shell_flags  # noqa: PLC0415
        from traitlets.config.loader import KeyValueConfigLoader  # noqa: PLC0415

        aliases: dict[Any, Any] = shell_aliases | _PLACES
        flags: dict[Any, Any] = dict(shell_flags)
        try:
            config: Config = KeyValueConfigLoader(arguments, aliases, flags).load_config()
        except (ConfigError, SystemExit, ValueError) as error:
            self.problems.append(f"IPython argument: {error}")
            return Config()
        return config

    def start(self, shell: UnstuckShell) -> None:
        """Load extensions and run the user's start-up code; its errors are shown, not fatal."""
        for problem in self.problems:
            sys.stderr.write(f"Error in configuration: {problem}\n")
        if self._has_work():
            self._run_startup(shell)
        else:
            shell.magics_manager.register_lazy("store", "IPython.extensions.storemagic")
            shell.user_ns_hidden.update(shell.user_ns)

    def _has_work(self) -> bool:
        if any(set(self.config.get(name, ())) - {"connection_file"} for name in _START_UP):
            return True
        if os.environ.get("PYTHONSTARTUP"):
            return True
        folders = [folder / "startup" for folder in self._folders()]
        return any(
            file.suffix in (".py", ".ipy")
            for folder in folders
            if folder.is_dir()
            for file in folder.iterdir()
        )

    def _run_startup(self, shell: UnstuckShell) -> None:
        from unstuck_worker.startup import Startup  # noqa: PLC0415  (most profiles are empty)

        Startup(shell, self).run()


def _text(value: object, default: str) -> str:
    """Read a string of a command line, which traitlets keeps for the trait that it is for."""
    return str(value) if value else default


def _find_profile(ipython_dir: str, name: str) -> ProfileDir:
    try:
        found: ProfileDir = ProfileDir.find_profile_dir_by_name(ipython_dir, name)
    except ProfileDirError:
        found = ProfileDir.create_profile_dir_by_name(ipython_dir, name)
    return found


def _environment_folder() -> Path:
    return Path(sys.prefix) / "etc" / "ipython"
