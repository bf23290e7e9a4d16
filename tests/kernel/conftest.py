"""What tests of the Caller leave behind: nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from kernel.callers import wait_until
from unstuck.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Stop all Callers after a test; none may go on, and no thread either."""
    before = set(threading.enumerate())
    yield
    Caller.stop_all(_stop_protected=True)
    assert Caller.all_callers(running_only=False) == []
    # Threads of trio's own cache for asyncio's and trio's helpers end by themselves.
    ours = [t for t in threading.enumerate() if t not in before and "trio" not in t.name.lower()]
    wait_until(lambda: not any(t.is_alive() for t in ours), f"threads {ours} have ended")
