"""A wait that could never end is refused, and the ring is named."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from kernel.callers import DEADLINE_S, both, run_with_caller, until, wait_until
from unstuck import deadlock
from unstuck.caller import Caller
from unstuck.deadlock import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from unstuck.future import Future
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


@both
def test_a_call_that_waits_for_itself_is_told_so(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        async def wait_for_myself() -> None:
            future = Caller.current_future()
            assert future is not None
            await future

        with pytest.raises(DeadlockError, match=r"waiting for oneself .* Caller<MainThread>"):
            await caller.call_soon(wait_for_myself)

    run_with_caller(backend, main)


@both
def test_a_refused_wait_cancels_nothing(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)

    async def wait_for_myself() -> None:
        future = Caller.current_future()
        assert future is not None
        await future

    # Nobody else waits for it: whoever gave up would be the last.
    future = caller.call_soon(wait_for_myself)
    wait_until(future.done, "the wait was refused")
    assert not future.cancelled()
    assert isinstance(future.exception(), DeadlockError)


def test_a_refused_wait_of_a_blocked_thread_cancels_nothing() -> None:
    one = Caller.start_new(name="one", backend="asyncio")
    two = Caller.start_new(name="two", backend="asyncio")

    waiting: list[Future[str]] = []

    def wait_for_each_other() -> str:
        def back() -> str:
            # Who waits second is refused: that shall be this one.
            wait_until(lambda: bool(waiting) and one.thread in deadlock._blocked, "the first wait")  # pyright: ignore[reportPrivateUsage]
            with pytest.raises(DeadlockError, match="waiting for oneself"):
                waiting[0].wait_sync()
            return "refused"

        return two.call_soon(back).wait_sync()

    waiting_in_one = one.call_soon(wait_for_each_other)
    waiting.append(waiting_in_one)
    wait_until(waiting_in_one.done, "the wait was refused")
    assert waiting_in_one.result() == "refused"


@both
def test_two_callers_that_wait_for_each_other_are_told_so(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        one = Caller.start_new(name="one", backend=backend)
        two = Caller.start_new(name="two", backend=backend)
        calls: list[Future[None]] = []
        ready = threading.Event()

        async def wait_for(other: int) -> None:
            await Caller.to_thread(ready.wait, DEADLINE_S)
            await calls[other]

        calls.append(one.call_soon(wait_for, 1))
        calls.append(two.call_soon(wait_for, 0))
        ready.set()
        await Caller.wait(calls)
        errors = [call.exception() for call in calls]
        told = [error for error in errors if isinstance(error, DeadlockError)]
        assert told
        assert "Caller<one>" in str(told[0])
        assert "Caller<two>" in str(told[0])

    run_with_caller(backend, main)


def test_a_ring_through_a_blocked_thread_is_found() -> None:
    one = Caller.start_new(name="one", backend="asyncio")
    two = Caller.start_new(name="two", backend="asyncio")
    begun = threading.Event()

    async def back_to_one() -> None:
        begun.wait(DEADLINE_S)
        await one.call_soon(lambda: None)

    outer = two.call_soon(back_to_one)
    blocked = one.call_soon(outer.wait_sync)
    wait_until(lambda: blocked.executing, "one is blocked")
    begun.set()
    wait_until(blocked.done, "the ring was found")
    assert isinstance(blocked.exception(), DeadlockError)
    assert "Caller<one>" in str(blocked.exception())


def test_a_task_beside_a_call_may_wait_for_what_waits_for_the_call() -> None:
    async def main(caller: Caller) -> None:
        calls: list[Future[str]] = []
        beside: list[asyncio.Task[str]] = []

        async def wait_for_other() -> str:
            return await calls[1]

        async def first() -> str:
            beside.append(asyncio.create_task(wait_for_other()))
            await asyncio.sleep(0.01)
            return "first"

        async def second() -> str:
            return await calls[0] + " second"

        calls.append(caller.call_soon(first))
        calls.append(caller.call_soon(second))
        assert await calls[1] == "first second"
        assert await beside[0] == "first second"

    run_with_caller("asyncio", main)


async def first_of(*futures: Future[str]) -> str:
    async with aclosing(Caller.as_completed(futures)) as done:
        return (await anext(done)).result()


async def all_of(*futures: Future[str]) -> str:
    done, _ = await Caller.wait(futures)
    return ", ".join(sorted(future.result() for future in done))


@both
@pytest.mark.parametrize("wait_for", [first_of, all_of])
def test_a_ring_through_a_wait_for_several_is_found(
    backend: Backend, wait_for: Callable[..., Awaitable[str]]
) -> None:
    async def main(caller: Caller) -> None:
        calls: list[Future[str]] = []

        async def several() -> str:
            await until(backend, lambda: len(calls) > 1, "both are there")
            return await wait_for(calls[1])

        async def back() -> str:
            return await calls[0]

        calls.append(caller.call_soon(several))
        calls.append(Caller.to_thread(back))
        with pytest.raises(DeadlockError, match="Caller<MainThread>"):
            await calls[0].wait(timeout=DEADLINE_S)

    run_with_caller(backend, main)


@both
def test_of_several_that_all_wait_for_the_waiter_the_last_one_is_told(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        calls: list[Future[str]] = []

        async def back() -> str:
            try:
                return await calls[0]
            except DeadlockError:
                return "told"

        async def several() -> str:
            return await first_of(*calls[1:])

        calls.append(caller.call_soon(several))
        calls += [caller.call_soon(back), caller.call_soon(back)]
        assert await calls[0].wait(timeout=DEADLINE_S) == "told"

    run_with_caller(backend, main)


@both
def test_one_of_several_may_wait_for_the_waiter_while_another_can_end_the_wait(
    backend: Backend,
) -> None:
    async def main(caller: Caller) -> None:
        calls: list[Future[str]] = []

        async def back() -> str:
            return await calls[0] + ", heard"

        async def several() -> str:
            return await first_of(*calls[1:])

        calls.append(caller.call_soon(several))
        calls += [caller.call_soon(back), caller.call_later(0.05, lambda: "other")]
        await until(backend, lambda: bool(calls[1].waits_for), "it waits for the waiter")
        assert await calls[0].wait(timeout=DEADLINE_S) == "other"
        assert calls[1].cancelled()

    run_with_caller(backend, main)


@both
def test_a_wait_for_several_with_a_timeout_ends_by_it_and_is_no_deadlock(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        calls: list[Future[str]] = []

        async def several() -> str:
            done, pending = await Caller.wait([calls[1]], timeout=0.05)
            assert not done
            assert pending == {calls[1]}
            return "went on"

        async def back() -> str:
            return await calls[0]

        calls.append(caller.call_soon(several))
        calls.append(caller.call_soon(back))
        assert await calls[1].wait(timeout=DEADLINE_S) == "went on"

    run_with_caller(backend, main)
