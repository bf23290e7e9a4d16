"""Give ``import pdb`` a debugger that an interrupt ends; Python's own asks for the next command.

The debugger is loaded only when someone imports it: hence a finder, not an import.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_IPYTHONS = "IPython.core.debugger"


class PdbFinder:
    """Let through every import but the first of the two debuggers."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Find a debugger as ever, with a loader that joins the two when both are there."""
        if fullname not in ("pdb", _IPYTHONS):
            return None
        sys.meta_path.remove(cast("Any", self))
        try:
            spec = find_spec(fullname)
        finally:
            sys.meta_path.insert(0, cast("Any", self))
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _JoiningLoader(spec.loader))
        return spec


class _JoiningLoader:
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if module.__name__ == _IPYTHONS:
            _join(sys.modules["pdb"], module)
        elif _IPYTHONS not in sys.modules:
            from IPython.core import debugger  # noqa: PLC0415

            _join(module, debugger)


def _join(pdb: Any, debugger: Any) -> None:  # noqa: ANN401  (modules whose names are replaced)
    debugger.Pdb = pdb.Pdb = debugger.InterruptiblePdb
    pdb.set_trace = debugger.set_trace


def install() -> None:
    """Watch for the import of a debugger."""
    sys.meta_path.insert(0, cast("Any", PdbFinder()))
