"""Locks between tasks and threads: exclusion, order, cancellation, re-entry by context."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.callers import (
    BACKENDS,
    DEADLINE_S,
    awaits,
    both,
    run_with_caller,
    sleep,
    until,
    wait_until,
)
from unstuck.caller import Caller, Future
from unstuck.future import InvalidStateError
from unstuck.locks import AsyncLock, ReentrantAsyncLock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")
locks = pytest.mark.parametrize("kind", [AsyncLock, ReentrantAsyncLock])


def as_stranger(
    caller: Caller, function: Callable[[int], Coroutine[Any, Any, None]], number: int
) -> Future[None]:
    """Call outside of the context that holds the lock."""
    return contextvars.Context().run(caller.call_soon, function, number)


@locks
def test_one_context_at_a_time_holds_a_lock(kind: type[AsyncLock]) -> None:
    lock = kind()
    inside = 0
    most = 0

    async def enter() -> None:
        nonlocal inside, most
        async with lock:
            assert lock.is_in_context()
            inside += 1
            most = max(most, inside)
            await anyio.sleep(0.001)
            inside -= 1

    callers = [Caller.start_new(backend=backend) for backend in (*BACKENDS, *BACKENDS)]
    futures = [caller.call_soon(enter) for _ in range(10) for caller in callers]
    wait_until(lambda: all(future.done() for future in futures), "all were inside")
    for future in futures:
        future.result()
    assert most == 1
    assert lock.count == 0
    assert not lock.is_in_context()


@both
def test_who_waited_longest_comes_next(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        lock = AsyncLock()
        order: list[int] = []

        async def enter(number: int) -> None:
            async with lock:
                order.append(number)

        async with lock:
            futures = [as_stranger(caller, enter, number) for number in range(5)]
            await until(backend, lambda: all(awaits(caller, f) for f in futures), "they wait")
            assert order == []
        await Caller.wait(futures)
        assert order == [0, 1, 2, 3, 4]

    run_with_caller(backend, main)


@both
def test_a_lock_is_refused_to_the_context_that_holds_it(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        lock = AsyncLock()
        assert repr(lock) == "AsyncLock(🔓)"
        async with lock as same:
            assert same is lock
            assert repr(lock) == "AsyncLock(🔒1)"
            with pytest.raises(RuntimeError, match="is held by this context already"):
                await lock.acquire()
            with pytest.raises(RuntimeError, match="is held by this context already"):
                await caller.call_soon(lock.acquire)
            assert lock.count == 1
        async with lock:
            assert lock.count == 1

    run_with_caller(backend, main)


@locks
@both
def test_only_the_holder_can_release(backend: Backend, kind: type[AsyncLock]) -> None:
    async def main(caller: Caller) -> None:
        lock = kind()
        with pytest.raises(InvalidStateError, match="is not held by this context"):
            await lock.release()
        await lock.acquire()
        await lock.release()
        with pytest.raises(InvalidStateError, match="is not held by this context"):
            await lock.release()

    run_with_caller(backend, main)


@both
def test_a_reentrant_lock_is_shared_with_the_calls_that_its_context_starts(
    backend: Backend,
) -> None:
    async def main(caller: Caller) -> None:
        lock = ReentrantAsyncLock()

        async def enter() -> int:
            async with lock:
                return lock.count

        async with lock:
            async with lock:
                assert lock.count == 2
                assert await Caller.to_thread(enter) == 3
                assert await caller.call_soon(enter) == 3
            assert lock.count == 1
        assert lock.count == 0

    run_with_caller(backend, main)


@both
def test_a_stranger_waits_for_a_reentrant_lock(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        lock = ReentrantAsyncLock()
        entered: list[int] = []

        async def enter(number: int) -> None:
            async with lock:
                entered.append(number)

        await lock.acquire()
        await lock.acquire()
        stranger = as_stranger(caller, enter, 1)
        await until(backend, lambda: awaits(caller, stranger), "it waits")
        await lock.release()
        await caller.call_soon(sleep, backend, 0)
        assert entered == []
        await lock.release()
        await stranger
        assert entered == [1]

    run_with_caller(backend, main)


@both
def test_a_cancelled_waiter_leaves_the_lock_to_the_others(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        lock = AsyncLock()
        entered: list[int] = []

        async def enter(number: int) -> None:
            async with lock:
                entered.append(number)

        await lock.acquire()
        futures = [as_stranger(caller, enter, number) for number in range(3)]
        await until(backend, lambda: all(awaits(caller, f) for f in futures), "they wait")
        futures[1].cancel()
        await futures[1].wait(result=False)
        await lock.release()
        await Caller.wait(futures)
        assert entered == [0, 2]
        assert lock.count == 0

    run_with_caller(backend, main)


@both
def test_a_holder_that_is_cancelled_releases(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        lock = AsyncLock()

        async def hold() -> None:
            async with lock:
                await sleep(backend, DEADLINE_S)

        holding = caller.call_soon(hold)
        await until(backend, lambda: lock.count == 1, "it is held")
        holding.cancel()
        async with lock:
            assert lock.count == 1

    run_with_caller(backend, main)
