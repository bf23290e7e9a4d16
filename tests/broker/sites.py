"""Facts that a test waits for while the broker's loop runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 20.0
LOOK_S = 0.002


async def wait_until(fact: Callable[[], bool], say: Callable[[], object]) -> None:
    """Let the loop run until ``fact`` holds; ``say`` tells what there is where it never does."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_S
    while not fact():
        assert loop.time() < end, f"it did not happen: {say()}"
        await asyncio.sleep(LOOK_S)
