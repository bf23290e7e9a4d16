"""Calls: in the Caller's thread, in order, at their time, whatever they raise."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from kernel.callers import DEADLINE_S, both, run, run_with_caller, sleep, until, wait_until
from unstuck.caller import Caller, Future
from unstuck.cancelled import FutureCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")
variable: ContextVar[str] = ContextVar("variable", default="unset")


@both
def test_functions_and_coroutine_functions_are_called_in_the_callers_thread(
    backend: Backend,
) -> None:
    caller = Caller.start_new(backend=backend, name="there")

    def where(*args: int, **kwargs: int) -> tuple[str, tuple[int, ...], dict[str, int]]:
        return threading.current_thread().name, args, kwargs

    async def where_later(*args: int, **kwargs: int) -> tuple[str, tuple[int, ...], dict[str, int]]:
        await sleep(backend, 0.001)
        return where(*args, **kwargs)

    async def main() -> None:
        expected = ("there", (1, 2), {"a": 3})
        assert await caller.call_soon(where, 1, 2, a=3) == expected
        assert await caller.call_soon(where_later, 1, 2, a=3) == expected
        assert await caller.call_soon(lambda: where_later(1, 2, a=3)) == expected
        assert await caller.call_later(0.001, where, 1, 2, a=3) == expected
        assert await caller.call_later(0, where_later, 1, 2, a=3) == expected

    run(backend, main)


@both
def test_a_coroutine_is_awaited_in_place_of_a_function(backend: Backend) -> None:
    async def answer() -> int:
        await sleep(backend, 0)
        return 42

    async def main(caller: Caller) -> None:
        coroutine: Any = answer()
        assert await caller.call_soon(coroutine) == 42

    run_with_caller(backend, main)


@both
def test_the_future_that_a_call_returns_is_awaited(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        inner: Future[int] = Future()
        outer = caller.call_soon(lambda: inner)
        await sleep(backend, 0.005)
        assert not outer.done()
        inner.set_result(4)
        assert await outer == 4

    run_with_caller(backend, main)


@both
def test_every_error_is_in_the_future_and_harms_no_caller(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)

    async def raise_later(error: BaseException) -> NoReturn:
        await sleep(backend, 0)
        raise error

    def raise_now(error: BaseException) -> NoReturn:
        raise error

    errors = (
        ValueError,
        KeyboardInterrupt,
        SystemExit,
        GeneratorExit,
        BaseException,
        StopIteration,
    )
    for kind in errors:
        for function in (raise_now, raise_later):
            if (kind, function) == (StopIteration, raise_later):
                # Python itself makes a RuntimeError of it.
                continue
            future = caller.call_soon(function, kind("mine"))
            wait_until(future.done, f"{kind} has ended the call")
            assert type(future.exception()) is kind
    assert caller.running
    assert caller.call_soon(lambda: "still there").wait_sync(timeout=DEADLINE_S) == "still there"


def test_a_call_that_cancels_itself_is_a_cancelled_future() -> None:
    async def main(caller: Caller) -> None:
        def cancel_now() -> NoReturn:
            raise asyncio.CancelledError

        with pytest.raises(FutureCancelledError):
            await caller.call_soon(cancel_now)

    run_with_caller("asyncio", main)


@both
def test_calls_from_the_callers_own_thread_run_soon_but_not_at_once(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        ran: list[int] = []
        future = caller.call_soon(ran.append, 1)
        assert ran == []
        await future
        assert ran == [1]

    run_with_caller(backend, main)


@both
def test_calls_start_in_the_order_of_submission(backend: Backend) -> None:
    """Synchronous ones, coroutine functions and functions that hide one, in any mixture."""
    started: list[int] = []

    async def start_later(number: int) -> None:
        started.append(number)
        await sleep(backend, 0)

    def start_now(number: int) -> None:
        started.append(number)

    hidden = partial(start_later)
    kinds: list[Callable[[int], object]] = [start_now, start_later, hidden, start_later, start_now]
    caller = Caller.start_new(backend=backend)
    futures = [caller.call_soon(kinds[number % 7 % 5], number) for number in range(2000)]
    wait_until(lambda: all(future.done() for future in futures), "all have ended")
    assert started == list(range(2000))


@both
def test_a_burst_of_short_calls_leaves_the_loop_to_others(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        ticks = 0
        futures = [caller.call_soon(time.sleep, 0.0005) for _ in range(200)]
        while not futures[-1].done():
            await sleep(backend, 0)
            ticks += 1
        assert ticks > 10

    run_with_caller(backend, main)


@both
def test_a_delay_is_counted_from_the_submission(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)
    begin = time.monotonic()
    future = caller.call_later(0.1, time.monotonic)
    later = caller.call_later(0.05, time.monotonic)
    caller.call_soon(time.sleep, 0.03)
    wait_until(lambda: future.done() and later.done(), "both were called")
    assert later.result() - begin >= 0.05
    assert future.result() - begin >= 0.1
    assert later.result() < future.result()


@both
def test_a_delayed_call_can_be_cancelled_and_is_forgotten_then(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        ran: list[int] = []
        mine = caller.call_later(0.02, ran.append, 1)
        assert mine.cancel()
        await until(backend, mine.done, "it is cancelled")
        there = Caller.start_new(backend=backend)
        theirs = there.call_later(DEADLINE_S, ran.append, 1)
        await until(backend, lambda: there.scheduler.outstanding == 1, "it waits")
        theirs.cancel()
        await until(backend, theirs.done, "it is cancelled")
        await until(backend, lambda: there.scheduler.outstanding == 0, "it is forgotten")
        await sleep(backend, 0.03)
        assert ran == []

    run_with_caller(backend, main)


@pytest.mark.parametrize("bad", [-1, -0.001, math.nan])
def test_a_delay_that_is_negative_or_no_number_names_the_caller(bad: float) -> None:
    async def main(caller: Caller) -> None:
        with pytest.raises(ValueError, match="Caller<MainThread>: delay must be zero or more"):
            caller.call_later(bad, print)

    run_with_caller("asyncio", main)


def test_a_delay_of_another_type_names_the_caller() -> None:
    async def main(caller: Caller) -> None:
        bad: Any = "soon"
        with pytest.raises(TypeError, match="Caller<MainThread>: delay must be a number"):
            caller.call_later(bad, print)

    run_with_caller("asyncio", main)


def test_calls_run_in_a_loop_inside_of_a_call() -> None:
    """As nest_asyncio nests them: a cell runs the loop that it is running in."""
    caller = Caller.start_new(backend="asyncio")

    def nest() -> int:
        loop: Any = asyncio.get_running_loop()

        def run_until(fact: Callable[[], bool]) -> None:
            until_s = time.monotonic() + DEADLINE_S
            while not fact():
                assert time.monotonic() < until_s
                loop.call_later(0.01, int)
                loop._run_once()

        inner = caller.call_soon(int, 4)
        run_until(inner.done)
        helper = threading.Thread(target=lambda: outside.append(caller.call_soon(int, 5)))
        helper.start()
        run_until(lambda: bool(outside) and outside[0].done())
        helper.join(DEADLINE_S)
        return inner.result() + outside[0].result()

    outside: list[Future[int]] = []
    for _ in range(3):
        outside.clear()
        assert caller.call_soon(nest).wait_sync(timeout=DEADLINE_S) == 9


def test_a_loop_that_was_closed_under_its_caller_is_noticed() -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> Caller:
        return await Caller(create=True).__aenter__()

    try:
        caller = loop.run_until_complete(begin())
    finally:
        loop.close()

    def call() -> Future[int]:
        return caller.call_soon(int, 1)

    thread = threading.Thread(target=lambda: futures.append(call()))
    futures: list[Future[int]] = []
    thread.start()
    thread.join(DEADLINE_S)
    assert futures[0].cancelled()
    caller.stop()
