"""Kernelspecs of ours: what they hold, where they live, how they come and go.

Nothing here asks or prints; the command line and the headless runner do.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from unstuck import kernel_protocol_version
from unstuck.config import parse_settings
from unstuck.errors import ConfigError

DEFAULT_NAME = "unstuck"
BROKER_MODULE = "unstuck_broker"
PROVISIONER = "unstuck"
"""The entry point of `unstuck.provisioner`."""
RESOURCES = Path(__file__).parent / "resources"

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecOptions:
    """What a user may choose about a kernelspec."""

    name: str = DEFAULT_NAME
    display_name: str = ""
    """Empty: made from the name."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    settings: Sequence[str] = ()
    """``NAME=VALUE`` for `unstuck.config`."""
    provisioner: bool = False
    """Have `unstuck.provisioner` launch it; a server without it hides the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledSpec:
    """A kernelspec of ours as it was found on disk."""

    name: str
    folder: Path
    display_name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    shadowed_by: Path | None
    """The folder of the kernelspec of the same name that Jupyter takes instead."""

    @property
    def python(self) -> Path:
        """The interpreter that the kernelspec starts."""
        return Path(self.argv[0])

    @property
    def python_exists(self) -> bool:
        """Whether that interpreter is still there and may be run."""
        return shutil.which(self.argv[0]) is not None

    @property
    def settings(self) -> list[str]:
        """The ``NAME=VALUE`` pairs of the kernelspec."""
        pairs = itertools.pairwise(self.argv)
        return [value for option, value in pairs if option == "--set"]


def check_platform(platform: str = sys.platform) -> None:
    """Refuse a platform on which the kernel cannot run.

    Raises:
        ConfigError: Windows.
    """
    if platform == "win32":
        raise ConfigError(
            "unstuck does not run on Windows yet: it needs fork, Unix sockets and process groups;"
            " it runs in WSL 2"
        )


def check_name(name: str) -> str:
    """Give ``name`` as Jupyter stores it, in lower case.

    Raises:
        ConfigError: a character that a kernelspec's name may not have.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ConfigError(
            f"{name!r} is no kernel name: use letters, digits, '.', '_' and '-', for example"
            f" {DEFAULT_NAME}"
        )
    return name.lower()


def _check_env(env: Mapping[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of an environment variable")
        if "\0" in value:
            raise ConfigError(f"the value of environment variable {name} has a NUL character")
    return dict(env)


def make_argv(settings: Sequence[str] = (), *, python: str = sys.executable) -> list[str]:
    """Build the command line of a kernel; ``{connection_file}`` is for Jupyter to fill in."""
    argv = [python, "-P", "-m", BROKER_MODULE, "-f", "{connection_file}"]
    for setting in settings:
        argv += ["--set", setting]
    return argv


def make_spec(options: SpecOptions) -> dict[str, Any]:
    """Build the content of a ``kernel.json``.

    Raises:
        ConfigError: a name, variable or setting that cannot be used.
    """
    name = check_name(options.name)
    parse_settings(list(options.settings))
    spec: dict[str, Any] = {
        "argv": make_argv(options.settings),
        "display_name": options.display_name or f"Python {sys.version_info.major} ({name})",
        "language": "python",
        "interrupt_mode": "message",
        "kernel_protocol_version": kernel_protocol_version,
        "metadata": {"supported_encryption": ["curve"], "concurrent": True},
    }
    if options.provisioner:
        spec["metadata"]["kernel_provisioner"] = {"provisioner_name": PROVISIONER}
    if env := _check_env(options.env):
        spec["env"] = env
    return spec


def is_ours(argv: object) -> bool:
    """Say whether a kernelspec's command line starts our broker."""
    if not isinstance(argv, Sequence) or isinstance(argv, str):
        return False
    words = cast("Sequence[object]", argv)
    return ("-m", BROKER_MODULE) in itertools.pairwise(words)


def kernels_folder(*, prefix: Path | None = None) -> Path:
    """Give the folder that holds kernelspecs: the user's, or the one of an environment."""
    if prefix is not None:
        return prefix.absolute() / "share" / "jupyter" / "kernels"
    from jupyter_core.paths import jupyter_data_dir  # noqa: PLC0415 - the broker never needs it

    return Path(jupyter_data_dir()) / "kernels"


def searched_folders() -> list[Path]:
    """List the folders where Jupyter looks for kernelspecs, the one that wins first."""
    from jupyter_core.paths import jupyter_path  # noqa: PLC0415 - the broker never needs it

    return list(dict.fromkeys(Path(folder) for folder in jupyter_path("kernels")))


def read_spec(folder: Path) -> dict[str, Any] | None:
    """Read the ``kernel.json`` in ``folder``; None when it is missing or no JSON object."""
    try:
        spec: object = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", spec) if isinstance(spec, dict) else None


def installed_specs(folders: Sequence[Path] | None = None) -> Iterator[InstalledSpec]:
    """Find the kernelspecs of ours, in the order in which Jupyter searches."""
    winners: dict[str, Path] = {}
    for folder in searched_folders() if folders is None else folders:
        for home in sorted(_children(folder)):
            spec = read_spec(home)
            if spec is None:
                continue
            name = home.name.lower()
            winner = winners.setdefault(name, home)
            if is_ours(spec.get("argv")):
                yield InstalledSpec(
                    name=name,
                    folder=home,
                    display_name=str(spec.get("display_name", "")),
                    argv=[str(word) for word in spec["argv"]],
                    env={str(key): str(value) for key, value in dict(spec.get("env", {})).items()},
                    shadowed_by=None if winner == home else winner,
                )


def _children(folder: Path) -> list[Path]:
    try:
        return [child for child in folder.iterdir() if child.is_dir()]
    except OSError:
        return []


def install_spec(options: SpecOptions, folder: Path, *, replace: bool = False) -> Path:
    """Write a kernelspec with its logos below ``folder``; one of ours with that name is replaced.

    Args:
        options: what the user chose.
        folder: a folder of kernelspecs, made when it is missing.
        replace: replace another kernel's kernelspec too.

    Raises:
        ConfigError: bad options, the name is another kernel's, or the folder cannot be written.
    """
    check_platform()
    spec = make_spec(options)
    home = folder / check_name(options.name)
    if not replace and home.exists() and not _is_home_of_ours(home):
        raise ConfigError(
            f"{home} belongs to another kernel: choose another --name, or replace it with --replace"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _swap_in(spec, home)
    except OSError as error:
        raise ConfigError(f"cannot install into {folder}: {error.strerror or error}") from error
    return home


def _is_home_of_ours(home: Path) -> bool:
    spec = read_spec(home)
    return spec is not None and is_ours(spec.get("argv"))


def _swap_in(spec: dict[str, Any], home: Path) -> None:
    """Fill a folder beside ``home`` and rename it: Jupyter never reads half a kernelspec."""
    # The leading dot keeps the name out of Jupyter's list while the folder is filled.
    staging = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        for resource in RESOURCES.glob("logo-*"):
            shutil.copyfile(resource, staging / resource.name)
        text = json.dumps(spec, indent=1, ensure_ascii=False) + "\n"
        (staging / "kernel.json").write_text(text, encoding="utf-8")
        # mkdtemp made it private: a kernelspec below a system prefix is for every user.
        staging.chmod(0o777 & ~_umask())
        _remove(home)
        staging.rename(home)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _remove(home: Path) -> None:
    if home.is_symlink() or home.is_file():
        home.unlink()
    elif home.exists():
        shutil.rmtree(home)


def uninstall_spec(spec: InstalledSpec) -> None:
    """Remove a kernelspec of ours.

    Raises:
        ConfigError: its folder cannot be removed.
    """
    try:
        _remove(spec.folder)
    except OSError as error:
        raise ConfigError(f"cannot remove {spec.folder}: {error.strerror or error}") from error
