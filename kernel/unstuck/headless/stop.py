"""The wish to end a run, as a signal handler can express it."""

from __future__ import annotations

import asyncio
from typing import Any


class StopRequest:
    """The wish to end a run: once to interrupt the running cell, twice to kill at once."""

    def __init__(self) -> None:
        """Start without a wish."""
        self._once = asyncio.Event()
        self._twice = asyncio.Event()

    def ask(self) -> None:
        """Ask once more."""
        if self._once.is_set():
            self._twice.set()
        self._once.set()

    @property
    def asked(self) -> bool:
        """Whether somebody has asked."""
        return self._once.is_set()

    async def watch(
        self, job: asyncio.Future[Any], deadline_s: float | None, *, asks: int = 1
    ) -> bool:
        """Wait until ``job`` is done (true), or for the deadline or that many asks (false)."""
        event = self._once if asks == 1 else self._twice
        asked = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait(
                {job, asked}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            asked.cancel()
        return job.done()
