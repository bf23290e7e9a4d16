"""What broker, worker and users share; importing it imports nothing heavy.

The public names below are loaded at their first use: a Caller needs anyio, and the broker's start
must not wait for that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from unstuck.version import __version__

if TYPE_CHECKING:
    from unstuck import utils
    from unstuck.caller import Caller
    from unstuck.future import Future
    from unstuck.snapshotting import snapshot
    from unstuck.typing import KernelConcurrencyMode, MsgType, RunMode, SocketID

__all__ = [
    "Caller",
    "Future",
    "KernelConcurrencyMode",
    "MsgType",
    "RunMode",
    "SocketID",
    "__version__",
    "kernel_protocol_version",
    "snapshot",
    "utils",
]

kernel_protocol_version = "5.5"

_HOMES = {
    "Caller": "unstuck.caller",
    "Future": "unstuck.future",
    "KernelConcurrencyMode": "unstuck.typing",
    "MsgType": "unstuck.typing",
    "RunMode": "unstuck.typing",
    "SocketID": "unstuck.typing",
    "snapshot": "unstuck.snapshotting",
}


def __getattr__(name: str) -> object:
    if name == "utils":
        return importlib.import_module("unstuck.utils")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'unstuck' has no attribute {name!r}")
