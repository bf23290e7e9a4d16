"""Compile cells under file names that debuggers, tracebacks and linecache agree on.

Threads: cells of several threads are compiled at the same time; passing flags are kept per thread.
"""

# IPython's methods have no types.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import struct
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.compilerop import CachingCompiler
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import CodeType

HASH_SEED = 0xC70F6907
"""Frontends compute the names of cells with this seed: ``debugInfo`` tells it."""
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes, seed: int = HASH_SEED) -> int:
    """Hash with MurmurHash2 (x86, 32 bits), as the Jupyter debugger protocol names it."""
    length = len(data)
    hashed = seed ^ length
    words, tail = divmod(length, 4)
    for word in struct.unpack_from(f"<{words}I", data):
        mixed = (word * _M) & _MASK
        mixed = ((mixed ^ (mixed >> 24)) * _M) & _MASK
        hashed = ((hashed * _M) & _MASK) ^ mixed
    if tail:
        hashed ^= int.from_bytes(data[-tail:], "little")
        hashed = (hashed * _M) & _MASK
    hashed ^= hashed >> 13
    hashed = (hashed * _M) & _MASK
    return hashed ^ (hashed >> 15)


def cell_folder() -> Path:
    """Say where the cells' files would be; a debugger writes them, nobody else does.

    Numba, joblib, line_profiler and executing know a cell by this name, which is ipykernel's.
    """
    return Path(tempfile.gettempdir()) / f"ipykernel_{os.getpid()}"


class CellCompiler(CachingCompiler):
    """IPython's compiler, with our file names."""

    def __init__(self) -> None:
        """Start without any ``__future__`` feature."""
        super().__init__()
        self._passing = threading.local()
        self._folder = str(cell_folder())

    @property
    def last_line(self) -> CodeType | None:
        """The code of this thread's newest line that displays its value."""
        return getattr(self._passing, "last_line", None)

    @override
    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        """Name the file of a cell after its source."""
        name = os.environ.get("IPYKERNEL_CELL_NAME")
        return name or f"{self._folder}{os.sep}{murmur2(raw_code.encode(errors='replace'))}.py"

    @override
    def __call__(self, source: Any, filename: str, symbol: str, **options: Any) -> Any:
        """Compile with the shell's flags and this thread's."""
        extra = getattr(self._passing, "flags", 0)
        code = compile(source, filename, symbol, self.flags | extra, dont_inherit=True)
        self.flags |= code.co_flags & _FUTURE_FLAGS
        if symbol == "single":
            self._passing.last_line = code
        return code

    @override
    @contextmanager
    def extra_flags(self, flags: int) -> Generator[None, None, None]:
        """Compile with more flags in this thread."""
        before = getattr(self._passing, "flags", 0)
        self._passing.flags = before | flags
        try:
            yield
        finally:
            self._passing.flags = before


def _future_flags() -> int:
    import __future__  # noqa: PLC0415  (its name would read as an import of features)

    flags = 0
    for name in __future__.all_feature_names:
        flags |= getattr(__future__, name).compiler_flag
    return flags


_FUTURE_FLAGS = _future_flags()
