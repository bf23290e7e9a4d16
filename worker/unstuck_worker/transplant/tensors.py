"""Carry the memory of torch's tensors as it is, and once where tensors share it.

torch pickles a storage by copying it three times, and a shared one once for each tensor.
"""

from __future__ import annotations

import importlib
import sys
from pickle import PickleBuffer
from typing import Any


class Storages:
    """The storages of one session."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: dict[int, Any] = {}

    def reduce(self, obj: Any) -> Any:  # noqa: ANN401  (what a pickler asks)
        """Say how a storage is pickled; NotImplemented for all else."""
        torch: Any = sys.modules.get("torch")
        if torch is None or type(obj).__module__ != "torch.storage":
            return NotImplemented
        if type(obj) is torch.storage.TypedStorage:
            untyped = obj._untyped_storage  # noqa: SLF001  (the public way warns)
            if untyped.device.type == "cpu":
                return make_typed, (self._known.setdefault(untyped._cdata, untyped), obj.dtype)  # noqa: SLF001
        if type(obj) is torch.storage.UntypedStorage and obj.device.type == "cpu":
            return make_untyped, (PickleBuffer(_bytes_of(torch, obj)),)
        return NotImplemented


def _bytes_of(torch: Any, storage: Any) -> Any:  # noqa: ANN401
    empty = torch.empty(0, dtype=torch.uint8)
    return empty.set_(storage, 0, (storage.nbytes(),), (1,)).numpy()


def make_untyped(buffer: Any) -> Any:  # noqa: ANN401
    """Make a storage of memory that may be written."""
    torch: Any = importlib.import_module("torch")

    raw = memoryview(buffer)
    if raw.nbytes == 0:
        return torch.UntypedStorage(0)
    return torch.frombuffer(
        bytearray(raw) if raw.readonly else raw, dtype=torch.uint8
    ).untyped_storage()


def make_typed(storage: Any, dtype: Any) -> Any:  # noqa: ANN401
    """Make the storage that torch's tensors are made of."""
    storages: Any = importlib.import_module("torch.storage")
    return storages.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)
