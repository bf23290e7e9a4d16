"""For which objects it matters that there is one of them: what can change, or is known by ``is``.

Numbers, texts, dtypes and the like may be doubled, and would tie all variables together.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import logging
import pathlib
import re
import sys
import types
import uuid

_VALUES: tuple[type, ...] = (
    str,
    bytes,
    int,
    float,
    complex,
    tuple,
    frozenset,
    range,
    slice,
    type,
    types.NoneType,
    types.EllipsisType,
    types.NotImplementedType,
    types.ModuleType,
    types.CodeType,
    types.BuiltinFunctionType,
    types.GetSetDescriptorType,
    types.GenericAlias,
    enum.Enum,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    pathlib.PurePath,
    re.Pattern,
    uuid.UUID,
    logging.Logger,
)
_EXACTLY = frozenset({tuple, frozenset})
"""Of these a subclass can have attributes that change."""
_OF_LIBRARIES = {
    "numpy": ("dtype", "generic", "ufunc"),
    "torch": ("dtype", "device", "Size", "memory_format"),
    "pyarrow": ("DataType", "Schema", "Field", "Scalar"),
    "pandas": ("api.extensions.ExtensionDtype", "Timestamp", "Timedelta", "Period"),
}


_FUNCTIONS = ("cython_function_or_method", "fused_cython_function")
"""Types of compiled functions, which are pickled by name; each extension module has its own."""
_OF_CELLS = "__main__"


class Identities(dict[type, bool]):
    """For each type whether its objects have an identity that must survive; made when asked."""

    def __init__(self) -> None:
        """Know no type yet."""
        super().__init__()
        self.of_classes: set[int] = set()
        """Ids of what hangs on the classes of libraries (defaults and the like): it stays there."""

    def __missing__(self, kind: type) -> bool:
        self[kind] = found = not _is_value(kind)
        if found:
            for base in kind.__mro__:
                if base.__module__ != _OF_CELLS:
                    self.of_classes.update(map(id, vars(base).values()))
        return found


def _is_value(kind: type) -> bool:
    if kind in _EXACTLY:
        return True
    if issubclass(kind, tuple(_EXACTLY)):
        return False
    is_function = kind.__name__ in _FUNCTIONS
    return is_function or issubclass(kind, _VALUES) or issubclass(kind, _library_types())


def _library_types() -> tuple[type, ...]:
    found: list[type] = []
    for name, attributes in _OF_LIBRARIES.items():
        module = sys.modules.get(name)
        for path in attributes if module is not None else ():
            value: object = module
            for part in path.split("."):
                value = getattr(value, part, None)
            if isinstance(value, type):
                found.append(value)
    return tuple(found)
