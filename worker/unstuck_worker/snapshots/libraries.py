"""What is known of libraries with native threads: which copies of them work.

Measured: see the tests of the library matrix. What is not known makes a donor, never a guess.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

DONORS = {
    r"polars-\d+": "polars' thread pool",
    r"tokio-rt-worker": "a pool of Rust's tokio",
    r"XLA.*|tf_XLA.*|llvm-worker-\d+": "XLA's thread pool",  # In jax and in tensorflow.
    r"tf_.*": "tensorflow's thread pool",
    r"ZMQbg.*": "a ZMQ context",
    r"grpc_.*|event_engine": "a gRPC channel",
    r"ray.*": "a ray cluster",
    r"cuda.*": "CUDA's threads",
}
"""Names of threads without which their library never works again; the first that fits counts."""
HARMLESS = re.compile(
    r"jemalloc_bg_thd|polars-ooc-clea|pt_autograd_\d+|openblas.*|numba.*|pydevd.*"
)
"""Names of threads that come back by themselves, or are not missed."""
WITH_POOLS = (
    "libopenblas",
    "libscipy_openblas",
    "libgomp",
    "libomp",
    "libiomp5",
    "libmkl",
    "libarrow",
    "_duckdb",
    "pypocketfft",
    "_pocketfft",
    "interpreter.cpython",  # numexpr
    "libtorch",
    "workqueue.cpython",
    "tbbpool.cpython",
    "libonnxruntime",
    "onnxruntime_pybind11_state",
    "cv2.abi3",
    "_h5py",
    "cygrpc",
)
"""Libraries that start threads without a name of their own, and have them again in a copy."""
NEVER = {"_xla.so": "jax", "libjax_common": "jax", "libtensorflow_framework": "tensorflow"}
"""Libraries whose unnamed threads do not come back."""
MODULES = {"ray": "ray", "distributed": "a dask cluster"}
"""Modules whose connections do not survive, once they have a client."""


class Loaded:
    """The shared libraries of this process; looked up again when modules were imported."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._names: frozenset[str] = frozenset()
        self._modules = -1

    def libraries(self) -> frozenset[str]:
        """Give the file names of the libraries that are mapped."""
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            self._names = frozenset(map(os.path.basename, library_paths()))
        return self._names


def library_paths() -> set[str]:
    """Give the paths of the libraries that are mapped."""
    try:
        with open("/proc/self/maps", "rb", 0) as file:  # noqa: PTH123  (some hundred lines)
            data = file.readall()
    except OSError:
        return set()
    found = set(re.findall(rb"(/[^\n]*\.so[^\n/]*)\n", data))
    return {os.fsdecode(path) for path in found}


def donor_reasons(
    comms: Iterable[str], inherited: Collection[str], libraries: Collection[str]
) -> list[str]:
    """Say why a copy of this process could give its variables, but not go on.

    Args:
        comms: names of the native threads that run no Python.
        inherited: names that such a thread has by default: those of the threads that start others.
        libraries: file names of the libraries that are loaded.
    """
    reasons: dict[str, None] = {}
    unnamed = 0
    for comm in comms:
        known = next((why for name, why in DONORS.items() if re.fullmatch(name, comm)), None)
        if known is not None:
            reasons[known] = None
        elif HARMLESS.fullmatch(comm):
            continue
        elif comm in inherited:
            unnamed += 1
        else:
            reasons[f"the native thread {comm!r}, which nobody knows"] = None
    if unnamed:
        never = {why for part, why in NEVER.items() if any(part in name for name in libraries)}
        reasons.update(dict.fromkeys(f"{name}'s threads" for name in sorted(never)))
        explained = any(part in name for part in WITH_POOLS for name in libraries)
        if not explained and not never:
            reasons["native threads that nobody knows"] = None
    return list(reasons)
