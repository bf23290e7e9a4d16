"""iopub with back-pressure on real sockets: the slow lose nothing, the dead stop nobody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker.zmq_clients import WAIT_S
from unstuck.config import Config
from unstuck_broker.publisher import MAX_WAITING, Publisher

if TYPE_CHECKING:
    from broker.zmq_clients import Bound, ZmqSocket
    from unstuck_broker.sockets import Sockets

PAYLOAD = bytes(10_000)
"""Large enough that the buffers of the operating system do not hide what zmq holds."""
STALL_S = 1.0
"""Longer than a busy machine needs for the 500 messages after which zmq sees that there is room."""


class Source:
    """A worker's outputs: numbered messages, which stop while they are held up."""

    def __init__(self, sockets: Sockets, config: Config) -> None:
        """Publish on ``sockets``; inside a running loop only."""
        self.publisher = Publisher(sockets, config, asyncio.get_running_loop(), self.flow)
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.count = 0

    def flow(self, *, blocked: bool) -> None:
        """Take the publisher's word for it."""
        if blocked:
            self.may_go.clear()
        else:
            self.may_go.set()

    def publish(self, payload: bytes = PAYLOAD) -> None:
        """Publish the next message, whether it is held up or not."""
        self.publisher.publish([b"%d" % self.count, payload])
        self.count += 1

    def fill(self) -> None:
        """Publish until it is held up."""
        while self.may_go.is_set():
            self.publish()
            assert self.count < 1_000_000

    async def run(self, count: int) -> None:
        """Publish so many messages as a worker does: not while it is held up."""
        for number in range(count):
            await asyncio.wait_for(self.may_go.wait(), WAIT_S)
            self.publish()
            if number % 20 == 0:
                await asyncio.sleep(0)


def numbers(subscriber: ZmqSocket) -> list[int]:
    """Take what is there for a subscriber now."""
    found: list[int] = []
    while subscriber.poll(0):
        found.append(int(subscriber.recv_multipart()[0]))
    return found


async def read(subscriber: ZmqSocket, last: int, found: list[int] | None = None) -> list[int]:
    """Read until a message arrives; give all that did, in ``found`` from the beginning."""
    found = [] if found is None else found
    end = asyncio.get_running_loop().time() + WAIT_S
    while last not in found[-1:]:
        assert asyncio.get_running_loop().time() < end, f"{len(found)} messages and not {last}"
        found += numbers(subscriber)
        await asyncio.sleep(0.001)
    return found


def test_messages_arrive_in_order_and_nothing_is_held_up(bound: Bound) -> None:
    sockets, clients = bound
    subscriber = clients.subscribe(sockets)

    async def scenario() -> None:
        source = Source(sockets, Config())
        for _ in range(100):
            source.publish()
        assert source.may_go.is_set()
        assert await read(subscriber, 99) == list(range(100))

    asyncio.run(scenario())


def test_a_slow_subscriber_holds_up_the_outputs_and_loses_nothing(bound: Bound) -> None:
    sockets, clients = bound
    subscriber = clients.subscribe(sockets, hwm=1)

    async def scenario() -> None:
        source = Source(sockets, Config())
        source.fill()
        last = source.count + 200
        for _ in range(201):  # Statuses come all the same.
            source.publish()
        assert await read(subscriber, last) == list(range(last + 1))
        await asyncio.wait_for(source.may_go.wait(), WAIT_S)

    asyncio.run(scenario())


def test_a_dead_subscriber_holds_up_the_others_once_and_not_again(bound: Bound) -> None:
    sockets, clients = bound
    dead = clients.subscribe(sockets, hwm=1)
    alive = clients.subscribe(sockets)

    async def scenario() -> None:
        source = Source(sockets, Config(iopub_stall_s=STALL_S))
        source.fill()
        last = source.count + 3000 - 1
        reading = asyncio.create_task(read(alive, last))
        await source.run(3000)
        assert await reading == list(range(last + 1))
        assert len(numbers(dead)) < last

    asyncio.run(scenario())


def test_a_subscriber_that_reads_again_loses_nothing_more(bound: Bound) -> None:
    sockets, clients = bound
    subscriber = clients.subscribe(sockets)

    async def scenario() -> None:
        source = Source(sockets, Config(iopub_stall_s=STALL_S))
        source.fill()
        await source.run(200)  # These are lost.
        first = source.count
        found: list[int] = []
        reading = asyncio.create_task(read(subscriber, first + 10_000, found))
        while found[-1:] < [first]:
            await source.run(1)
            assert source.count < first + 7000, "it gets nothing any more"
        await source.run(first + 10_001 - source.count)
        await reading
        again = [number for number in found if number >= first]
        assert again == list(range(again[0], source.count))

    asyncio.run(scenario())


def test_large_messages_that_nobody_reads_hold_up_the_outputs_once_and_not_again(
    bound: Bound,
) -> None:
    sockets, clients = bound
    clients.subscribe(sockets, hwm=1)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        source = Source(sockets, Config(iopub_stall_s=STALL_S))
        source.publisher.max_in_flight_bytes = 10 << 20
        stalls = 0
        for _ in range(60):
            asked_s = loop.time()
            await asyncio.wait_for(source.may_go.wait(), WAIT_S)
            stalls += loop.time() - asked_s > STALL_S / 2
            source.publish(bytes(1 << 20))
        assert stalls == 1

    asyncio.run(scenario())


def test_what_comes_while_outputs_are_held_up_is_bounded(bound: Bound) -> None:
    sockets, clients = bound
    subscriber = clients.subscribe(sockets, hwm=1)

    async def scenario() -> None:
        source = Source(sockets, Config())
        source.fill()
        first_waiting = source.count - 1
        for _ in range(MAX_WAITING + 9):
            source.publish(b"")
        last = source.count - 1
        found = await read(subscriber, last)
        lost = sorted(set(range(last + 1)) - set(found))
        assert lost == list(range(first_waiting, first_waiting + 10))

    asyncio.run(scenario())
