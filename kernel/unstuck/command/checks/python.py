"""The interpreter, its packages and the environment variables that change it."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from unstuck.command.checks.finding import Finding, good, note, wrong
from unstuck.errors import ConfigError
from unstuck.kernelspec import check_platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OLDEST = (3, 11)
NEWEST = (3, 13)

MODULES = {
    "pyzmq": "zmq",
    "anyio": "anyio",
    "msgspec": "msgspec",
    "typing_extensions": "typing_extensions",
    "psutil": "psutil",
    "ipython": "IPython",
    "comm": "comm",
    "matplotlib-inline": "matplotlib_inline",
    "jupyter_client": "jupyter_client",
    "click": "click",
    "rich": "rich",
    "nbformat": "nbformat",
    "nbclient": "nbclient",
}
"""What we depend on: the distribution and the module that it brings."""

OWN_MODULES = ("unstuck", "unstuck_broker", "unstuck_worker")

_AT_LEAST = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)$")

HARMFUL = {
    "PYTHONHOME": "Python looks for its library there, and finds another version's or none",
    "PYTHONINSPECT": "processes wait for a prompt at their end instead of ending",
}
"""Variables that break the kernel, with what they do."""

NOTABLE = {
    "PYTHONPATH": "its folders come before the installed packages",
    "PYTHONWARNINGS": "warnings of the libraries show up in cells, or with 'error' stop imports",
    "PYTHONOPTIMIZE": "assert statements in cells do nothing",
    "PYTHONDEVMODE": "everything is slower, and warnings show up in cells",
    "PYTHONASYNCIODEBUG": "awaiting cells are slower, and slow callbacks are logged in them",
    "PYTHONMALLOC": "with a debug allocator everything is slower",
    "PYTHONTRACEMALLOC": "everything is slower and needs more memory",
    "PYTHONIOENCODING": "text may be encoded in another way than UTF-8",
    "LD_PRELOAD": "a library is loaded into every process of the kernel",
    "MPLBACKEND": "matplotlib uses that backend: with another than inline, cells show no pictures",
}
"""Variables that change what cells do, with how."""


def check_python(
    seen: tuple[int, int] = sys.version_info[:2],
    implementation: str = platform.python_implementation(),
) -> Iterator[Finding]:
    """Look at the version of Python."""
    text = f"{implementation} {seen[0]}.{seen[1]} ({sys.executable})"
    supported = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if implementation != "CPython" or seen < OLDEST:
        yield wrong("Python", text, f"install unstuck in an environment of CPython {supported}")
    elif seen > NEWEST:
        yield note("Python", f"{text}, which is newer than what is tested: {supported}")
    else:
        yield good("Python", text)


def check_system(name: str = sys.platform) -> Iterator[Finding]:
    """Look at the platform."""
    try:
        check_platform(name)
    except ConfigError as error:
        yield wrong("Platform", str(error), "use Linux, macOS or WSL 2")
        return
    if name.startswith("linux"):
        yield good("Platform", platform.platform())
    else:
        yield note("Platform", f"{platform.platform()}: Linux is what is tested most")


def least_versions() -> dict[str, str]:
    """Read from our own metadata which version of a distribution is the oldest that will do."""
    try:
        requirements = requires("unstuck") or []
    except PackageNotFoundError:
        requirements = []
    plain = (requirement.partition(";")[0].replace(" ", "") for requirement in requirements)
    return {match[1]: match[2] for match in map(_AT_LEAST.match, plain) if match}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def check_packages(
    modules: Mapping[str, str] = MODULES, least: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Import what we depend on, and look at the versions."""
    least = least_versions() if least is None else least
    for distribution, module in modules.items():
        subject = f"Package {distribution}"
        try:
            importlib.import_module(module)
            have = version(distribution)
        except (ModuleNotFoundError, PackageNotFoundError):
            yield wrong(subject, "is not installed", f"pip install {distribution}")
        except Exception as error:  # noqa: BLE001 - a broken package raises anything
            seen = f"cannot be imported: {type(error).__name__}: {error}"
            yield wrong(subject, seen, f"pip install --force-reinstall {distribution}")
        else:
            wanted = least.get(distribution, "")
            if wanted and _numbers(have) < _numbers(wanted):
                remedy = f"pip install '{distribution}>={wanted}'"
                yield wrong(subject, f"{have} is older than {wanted}", remedy)
            else:
                yield good(subject, have)


def check_own_modules(modules: tuple[str, ...] = OWN_MODULES) -> Iterator[Finding]:
    """Look for the three packages of ours, as a kernel's process would find them."""
    for module in modules:
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            yield wrong(f"Package {module}", f"cannot be imported: {error}", "pip install unstuck")
        else:
            yield good(f"Package {module}", str(next(iter(found.__path__))))


def check_variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look for environment variables that disturb a kernel, which inherits them."""
    quiet = True
    for name, effect in {**HARMFUL, **NOTABLE}.items():
        value = environment.get(name)
        if not value or (name == "MPLBACKEND" and "inline" in value):
            continue
        quiet = False
        seen = f"{name}={value}: {effect}"
        if name in HARMFUL:
            yield wrong("Environment", seen, f"unset {name} before Jupyter is started")
        else:
            yield note("Environment", seen)
    if quiet:
        yield good("Environment", "no variable that changes how Python runs")
