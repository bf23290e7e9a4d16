"""Limits of a worker's tree: what exceeds one is looked at twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from unstuck.config import Config
from unstuck_broker.events import LimitExceeded
from unstuck_broker.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 20.0


class Tree:
    """A supervisor of which only the processes are asked."""

    def __init__(self, sizes: Iterator[int]) -> None:
        self._sizes = sizes
        self.done = asyncio.Event()

    def pids(self) -> set[int]:
        size = next(self._sizes, None)
        if size is None:
            self.done.set()
            return set()
        return set(range(size))


@pytest.mark.parametrize(
    ("sizes", "told"),
    [([3, 2, 3, 1], 0), ([3, 3, 1], 1), ([2, 2], 0), ([3, 3, 3, 1, 3, 3], 3)],
)
def test_what_exceeds_a_limit_for_a_moment_only_is_let_go(sizes: list[int], told: int) -> None:
    async def check() -> None:
        events: list[Any] = []
        tree: Any = Tree(iter(sizes))
        watch = Watch(asyncio.get_running_loop(), tree, events.append)
        watch.follow(Config(processes=2), busy=False)
        await asyncio.wait_for(tree.done.wait(), WAIT_S)
        assert [type(event) for event in events] == [LimitExceeded] * told

    asyncio.run(check())
