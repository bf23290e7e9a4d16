"""Stand-ins for ipykernel's modules: libraries know a notebook by their being imported.

Really importing ipykernel would cost every start more time than all the rest, and bring zmq into
the worker. A stand-in has what libraries ask for when they look where they run. The real module is
imported in its place as soon as anybody wants more of it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MORE: Mapping[str, frozenset[str]] = {
    "ipykernel": frozenset(
        {
            "__path__",  # The import system asks for it when a module within is imported.
            "connect",
            "connect_qtconsole",
            "get_connection_info",
            "kernel_protocol_version",
            "kernel_protocol_version_info",
        }
    ),
    "ipykernel.iostream": frozenset({"BackgroundSocket", "IOPubThread"}),
    "ipykernel.zmqshell": frozenset({"InteractiveShellABC", "KernelMagics"}),
}
"""Each module that has a stand-in, and which names in it are worth the real one.

Not all: `inspect` and pickle look through all modules for names that most do not have.
"""


class StandIn(ModuleType):
    """Stand in ``sys.modules`` for a module that nobody has needed yet."""

    def __init__(self, name: str, look_up: Callable[[str, str], object]) -> None:
        """Give the names that ``look_up(module, name)`` knows."""
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, is_package="." not in name)
        self._look_up = look_up
        self._real: ModuleType | None = None

    def __getattr__(self, name: str) -> object:
        """Give a name of ours, else what the real module has, if it may be worth its import."""
        if self._real is None:
            if f"{self.__name__}.{name}" in _MORE:
                return sys.modules[f"{self.__name__}.{name}"]
            if name not in _MORE[self.__name__]:
                return self._look_up(self.__name__, name)
            self._real = _import(self.__name__)
        return getattr(self._real, name)


def install(look_up: Callable[[str, str], object]) -> None:
    """Put the stand-ins in place where the modules are not imported."""
    for name in _MORE:
        sys.modules.setdefault(name, StandIn(name, look_up))


def _import(name: str) -> ModuleType:
    """Import a module of ipykernel in the place of its stand-in."""
    stand_in = sys.modules.pop(name, None)
    try:
        return importlib.import_module(name)
    except BaseException:
        if stand_in is not None:
            sys.modules.setdefault(name, stand_in)
        raise
