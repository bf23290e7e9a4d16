"""What IPython puts in place for a cell and takes away at its end, left in place for good.

Cells run beside each other: the end of one must not take anything from the others.
"""

# IPython's methods have no types.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Literal

from IPython.core.builtin_trap import BuiltinTrap
from IPython.core.display_trap import DisplayTrap
from typing_extensions import override


class LastingBuiltinTrap(BuiltinTrap):
    """Put IPython's names into ``builtins`` once, for cells that run beside each other."""

    @override
    def __exit__(self, *_error: object) -> Literal[False]:
        """Leave the names."""
        return False

    @override
    def __enter__(self) -> LastingBuiltinTrap:
        if not self._nested_level:
            self._nested_level = 1
            self.activate()
        return self


class LastingDisplayTrap(DisplayTrap):
    """Put the display hook in place for a cell, and leave it there.

    Cells run beside each other: the end of one must not take the hook from the others.
    """

    @override
    def __enter__(self) -> LastingDisplayTrap:
        cell = self.hook.shell.cell
        if cell is None or cell.outer is None:
            self.set()
        return self

    @override
    def __exit__(self, *_error: object) -> Literal[False]:
        """Leave the hook."""
        return False

    @property
    def is_active(self) -> bool:
        """Tell that the hook is there, as it always is."""
        return True
