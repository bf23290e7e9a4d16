"""The user's own hooks around a fork: a snapshot is none of their business."""

from __future__ import annotations

import os
from functools import wraps
from typing import TYPE_CHECKING, Any

from unstuck_worker.snapshots.mark import Mark

if TYPE_CHECKING:
    from collections.abc import Callable

    Hook = Callable[[], object]

_USER = "__main__"


def spare_users() -> None:
    """Let hooks that cells register from here on run at the forks of cells only.

    Those of libraries run at ours as well: a copy needs them.
    """
    register: Callable[..., None] = os.register_at_fork

    @wraps(register)
    def register_at_fork(**hooks: Any) -> None:  # noqa: ANN401  (what the original takes)
        register(**{name: _spared(hook) for name, hook in hooks.items()})

    os.register_at_fork = register_at_fork


def _spared(hook: Hook) -> Hook:
    if getattr(hook, "__module__", None) != _USER:
        return hook

    @wraps(hook)
    def run_unless_ours() -> object:
        return None if Mark.is_snapshot else hook()

    return run_unless_ours
