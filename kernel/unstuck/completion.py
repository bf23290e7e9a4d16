"""Wait for several futures at once: `Caller.as_completed` and `Caller.wait`."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterable, Iterator
from time import monotonic
from typing import Any, Generic, Literal, TypeVar, get_args

from unstuck.deadlock import awaiting
from unstuck.future import Future, current_future
from unstuck.scheduler import is_awaitable
from unstuck.seconds import check_timeout
from unstuck.waiting import TaskWaiter, new_waiter

T = TypeVar("T")

ReturnWhen = Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]


class Notice(Generic[T]):
    """An entry that tells a watch of its future's end."""

    __slots__ = ("future", "watch")

    def __init__(self, watch: Watch[T], future: Future[T]) -> None:
        self.watch = watch
        self.future = future

    def wake(self) -> None:
        self.watch.arrived.append(self.future)
        self.watch.wake()


class Watch(Generic[T]):
    """The futures that one task waits for."""

    def __init__(self) -> None:
        self.waited: dict[Future[T], Notice[T]] = {}
        self.arrived: deque[Future[T]] = deque()
        self._waiter: TaskWaiter | None = None

    def add(self, item: Awaitable[T]) -> None:
        """Wait for one more; an awaitable that is no future is called in the current Caller."""
        future = as_future(item)
        if future in self.waited or future is current_future.get():
            # Nobody can wait for the call that he runs in.
            return
        self.waited[future] = notice = Notice(self, future)
        future.add_entry(notice)

    def take(self) -> Future[T] | None:
        """Give one that is done."""
        if not self.arrived:
            return None
        future = self.arrived.popleft()
        del self.waited[future]
        return future

    def wake(self) -> None:
        """Wake the task that waits; from any thread."""
        if self._waiter is not None:
            self._waiter.wake()

    async def sleep(self, timeout_s: float | None = None) -> bool:
        """Wait until one has arrived or somebody rings; False when the time was up first."""
        self._waiter = waiter = new_waiter()
        try:
            if self.arrived:
                return True
            if timeout_s is not None:
                return await waiter.park(timeout_s)
            with awaiting(current_future.get(), self.waited):
                return await waiter.park(None)
        finally:
            self._waiter = None

    async def sleep_unless(self, feeding: Future[None]) -> None:
        """Wait likewise, but not for a feeder that has fed all."""
        self._waiter = waiter = new_waiter()
        try:
            if not self.arrived and (self.waited or not feeding.done()):
                await waiter.park(None)
        finally:
            self._waiter = None

    def leave(self, *, shield: bool, message: str) -> None:
        """Stop waiting; the rule of `Future` says which futures that cancels."""
        for future, notice in self.waited.items():
            future.leave(notice, shield=shield, message=message)


class Feeder(Generic[T]):
    """Feed a watch out of an asynchronous iterable, beside the task that waits."""

    def __init__(self, watch: Watch[T], items: AsyncIterable[Awaitable[T]], limit: int) -> None:
        self._watch = watch
        self._items = items
        self._limit = limit
        self._room: TaskWaiter | None = None

    async def feed(self) -> None:
        """Add items as long as there are less than the limit."""
        try:
            async for item in self._items:
                self._watch.add(item)
                self._watch.wake()
                while len(self._watch.waited) >= self._limit:
                    self._room = new_waiter()
                    await self._room.park(None)
        finally:
            self._watch.wake()

    def make_room(self) -> None:
        """Say that one less is waited for."""
        if self._room is not None:
            self._room.wake()


def as_future(item: Awaitable[T]) -> Future[T]:
    """Give a future for anything that can be awaited."""
    if isinstance(item, Future):
        return item
    if not is_awaitable(item):
        raise TypeError(f"cannot wait for {item!r}: it is neither a future nor awaitable")
    from unstuck.caller import Caller  # noqa: PLC0415  (caller imports this module)

    async def awaited() -> T:
        return await item

    return Caller().call_soon(awaited)


def as_completed(
    items: Iterable[Awaitable[T]] | AsyncIterable[Awaitable[T]], limit: int, *, shield: bool
) -> AsyncGenerator[Future[T], None]:
    """Give futures as they get done; see `Caller.as_completed`."""
    if isinstance(items, AsyncIterable):
        return _from_async(items, limit, shield=shield)
    unlimited = isinstance(items, set | frozenset | list | tuple)
    return _from_iterator(iter(items), None if unlimited else limit, shield=shield)


async def _from_iterator(
    items: Iterator[Awaitable[T]], limit: int | None, *, shield: bool
) -> AsyncGenerator[Future[T], None]:
    watch: Watch[T] = Watch()
    more = True
    try:
        while more or watch.waited:
            while more and (limit is None or len(watch.waited) < limit):
                item = next(items, None)
                more = item is not None
                if item is not None:
                    watch.add(item)
            if (future := watch.take()) is not None:
                yield future
            elif watch.waited:
                await watch.sleep()
    finally:
        watch.leave(shield=shield, message="Cancelled by as_completed")


async def _from_async(
    items: AsyncIterable[Awaitable[T]], limit: int, *, shield: bool
) -> AsyncGenerator[Future[T], None]:
    from unstuck.caller import Caller  # noqa: PLC0415  (caller imports this module)

    watch: Watch[T] = Watch()
    feeder = Feeder(watch, items, limit)
    feeding: Future[None] = Caller().call_soon(feeder.feed)
    feeding.add_entry(watch)
    try:
        while watch.waited or not feeding.done():
            if (future := watch.take()) is not None:
                feeder.make_room()
                yield future
            else:
                await watch.sleep_unless(feeding)
        feeding.result()
    finally:
        feeding.cancel()
        watch.leave(shield=shield, message="Cancelled by as_completed")


async def wait(
    items: Iterable[Awaitable[T]], *, timeout: float | None, return_when: ReturnWhen
) -> tuple[set[Future[T]], set[Future[T]]]:
    """Wait for futures; see `Caller.wait`."""
    if return_when not in get_args(ReturnWhen):
        raise ValueError(
            f"unknown return_when {return_when!r}: it is one of {', '.join(get_args(ReturnWhen))}"
        )
    timeout_s = check_timeout(timeout, "Caller.wait")
    until_s = None if timeout_s is None else monotonic() + timeout_s
    watch: Watch[T] = Watch()
    done: set[Future[T]] = set()
    pending = {as_future(item) for item in items}
    try:
        for future in pending:
            watch.add(future)
        while True:
            while (future_ := watch.take()) is not None:
                done.add(future_)
            if not watch.waited or _is_enough(done, return_when):
                break
            left_s = None if until_s is None else max(0.0, until_s - monotonic())
            if not await watch.sleep(left_s):
                break
    finally:
        watch.leave(shield=True, message="")
    return done, pending - done


def _is_enough(done: set[Future[Any]], return_when: ReturnWhen) -> bool:
    if return_when == "FIRST_COMPLETED":
        return bool(done)
    if return_when == "FIRST_EXCEPTION":
        return any(future.cancelled() or future.exception() is not None for future in done)
    return False
