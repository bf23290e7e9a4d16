"""How objects of the standard library are pickled that cannot say it themselves, or say it wrong.

A function of a cell under ``functools.lru_cache`` calls itself a global: that is another one, or
none, where it is read. A ``cached_property`` holds a lock up to Python 3.11, and with it the class.
"""

from __future__ import annotations

import sys
from functools import cached_property, lru_cache
from typing import Any

_Cached = type(lru_cache(lambda: None))
KINDS = frozenset({_Cached, cached_property})
_OF_CELLS = "__main__"
_MADE_ANEW = frozenset({"__wrapped__", "cache_parameters"})
"""Attributes that the cache sets itself."""


def reduce(obj: Any) -> Any:  # noqa: ANN401  (the pickler's)
    """Say how one of `KINDS` is pickled; NotImplemented: as it says itself."""
    kind = type(obj)
    if kind is cached_property:
        return cached_property, (obj.func,), {"attrname": obj.attrname}
    if kind is not _Cached or _is_global(obj):
        return NotImplemented
    attributes = {name: value for name, value in vars(obj).items() if name not in _MADE_ANEW}
    parameters = obj.cache_parameters()
    return cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"]), attributes


def _is_global(cache: Any) -> bool:  # noqa: ANN401
    """Say whether a module has this very object under its name, wherever it is read."""
    if cache.__module__ == _OF_CELLS:
        return False
    found: object = sys.modules.get(cache.__module__)
    for name in cache.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cache


def cached(function: Any, maxsize: int | None, typed: bool) -> Any:  # noqa: ANN401
    """Give a function a cache, which is empty."""
    return lru_cache(maxsize, typed)(function)
