"""The states of requests that come on control in rapid succession: they follow together.

A client that asks again as soon as it has its answer would else wait each time until busy and idle
of the request before are signed, sent and read by it (measured in a Python loop: 0.19 ms for an
answer, 0.12 ms so). Whatever else is published goes behind them, so iopub keeps its order.

Threads: the broker's loop only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from unstuck_broker.actions import PublishToClients

RAPID_S = 0.001
"""Who asks again within this does not wait for anything else."""
HOLD_S = 0.002
"""How long states wait."""
AT_ONCE = 6
"""So many are published before the loop looks whether somebody asks again."""


class States:
    """The states that wait, with the dates that they are to have."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        publish: Callable[[PublishToClients, str], None],
        nobodys_header: bytes,
    ) -> None:
        """Have states published by ``publish``.

        Args:
            loop: the broker's.
            publish: takes a state and its date.
            nobodys_header: the parent of states that belong to no request.
        """
        self._loop = loop
        self._publish = publish
        self._nobodys_header = nobodys_header
        self._held: deque[tuple[PublishToClients, str]] = deque()
        self._timer: asyncio.Handle | None = None
        self._asked_s = float("-inf")

    def is_rapid(self) -> bool:
        """Note that somebody asks; say whether the request before came just now."""
        before_s, self._asked_s = self._asked_s, self._loop.time()
        return self._asked_s - before_s < RAPID_S

    def hold(self, state: PublishToClients, date: str) -> None:
        """Publish a state a moment later; it takes the place of a last one that is nobody's."""
        if self._held and self._held[-1][0].parent_header == self._nobodys_header:
            self._held.pop()
        self._held.append((state, date))
        if self._timer is None:
            self._timer = self._loop.call_later(HOLD_S, self._wake)

    def let_go(self) -> None:
        """Publish them now: something else is to follow."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._publish_some(len(self._held))

    def _wake(self) -> None:
        self._publish_some(AT_ONCE)
        self._timer = self._loop.call_soon(self._wake) if self._held else None

    def _publish_some(self, count: int) -> None:
        for _ in range(min(count, len(self._held))):
            self._publish(*self._held.popleft())
