"""The reader of the output lane: many small messages are taken in turns, in order, to the last."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from broker.sites import wait_until
from unstuck.codec import encode
from unstuck.protocol import Pong
from unstuck_broker.lane import MESSAGES_AT_ONCE, LaneReader
from unstuck_broker.pace import Precedence
from unstuck_broker.reason import Why

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from unstuck_broker.reason import Reason

COUNT = 5 * MESSAGES_AT_ONCE + 3


class Site:
    """A lane whose worker's end is ours."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.theirs, ours = socket.socketpair()
        ours.setblocking(False)
        self.ours = ours
        self.taken: list[int] = []
        self.more: list[bool] = []
        self.looks: list[int] = []
        """How much had been taken at each look at control."""
        self.broken: list[Reason] = []
        self.on_message: Callable[[int], object] = lambda _number: None
        precedence = Precedence(self.loop, lambda: self.looks.append(len(self.taken)))
        self.reader = LaneReader(ours, self.loop, self.take, self.broken.append, precedence)

    def take(self, message: Any, more: bool) -> None:  # noqa: ANN401
        self.taken.append(message.number)
        self.more.append(more)
        self.on_message(message.number)

    def send(self, numbers: range) -> None:
        self.theirs.sendall(b"".join(b"".join(encode(Pong(n, 0))) for n in numbers))

    async def wait(self, fact: Callable[[], bool]) -> None:
        await wait_until(fact, lambda: self.taken)

    def close(self) -> None:
        self.reader.close()
        self.theirs.close()
        self.ours.close()


def run(check: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        site = Site()
        try:
            await check(site)
        finally:
            site.close()

    asyncio.run(main())


def test_control_is_looked_at_between_turns() -> None:
    async def check(site: Site) -> None:
        site.send(range(COUNT))
        await site.wait(lambda: len(site.taken) == COUNT)
        assert site.taken == list(range(COUNT))
        assert site.looks == list(range(MESSAGES_AT_ONCE, COUNT, MESSAGES_AT_ONCE))
        ends = [at for at, more in enumerate(site.more, 1) if not more]
        assert ends == [*site.looks, COUNT], "each turn is decided in one go"

    run(check)


def test_what_was_read_is_taken_when_the_reader_goes_on() -> None:
    async def check(site: Site) -> None:
        site.on_message = lambda number: site.reader.pause() if number == 2 else None
        site.send(range(COUNT))
        await site.wait(lambda: len(site.taken) == MESSAGES_AT_ONCE)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(site.taken) == MESSAGES_AT_ONCE, "it is paused"
        site.reader.resume()
        site.reader.resume()
        await site.wait(lambda: len(site.taken) == COUNT)
        site.send(range(COUNT, COUNT + 2))
        await site.wait(lambda: len(site.taken) == COUNT + 2)
        assert site.taken == list(range(COUNT + 2))

    run(check)


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_dead_worker_s_messages_are_read_to_the_last(is_paused: bool) -> None:
    async def check(site: Site) -> None:
        if is_paused:
            site.on_message = lambda number: site.reader.pause() if number == 2 else None
        site.send(range(COUNT))
        await site.wait(lambda: len(site.taken) >= MESSAGES_AT_ONCE)
        site.send(range(COUNT, COUNT + 5))
        site.theirs.close()
        site.reader.drain()
        assert site.taken == list(range(COUNT + 5))
        assert [reason.why for reason in site.broken] == [Why.LANE_CLOSED]

    run(check)


def test_messages_before_rubbish_are_taken() -> None:
    async def check(site: Site) -> None:
        site.send(range(3))
        await site.wait(lambda: len(site.taken) == 3)
        site.theirs.sendall(b"\xff" * 64)
        await site.wait(lambda: bool(site.broken))
        assert site.broken[0].why is Why.LANE_BROKEN

    run(check)
