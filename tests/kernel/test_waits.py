"""Waiting for a future: in tasks and threads, by the thousand, with a timeout."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from kernel.callers import (
    BACKENDS,
    DEADLINE_S,
    both,
    run,
    run_with_caller,
    sleep,
    until,
    wait_until,
)
from unstuck.caller import Caller
from unstuck.deadlock import DeadlockError
from unstuck.future import Future

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


@both
def test_a_future_can_be_awaited_in_its_own_thread(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        future: Future[str] = Future()
        caller.call_later(0.01, future.set_result, "there")
        assert await future == "there"
        assert await future.wait() == "there"
        assert cast("Any", await future.wait(result=False)) is None

    run_with_caller(backend, main)


@pytest.mark.parametrize("other", BACKENDS)
@both
def test_a_future_can_be_awaited_in_another_thread_with_either_backend(
    backend: Backend, other: Backend
) -> None:
    async def main(caller: Caller) -> None:
        future: Future[str] = Future()

        async def wait_there() -> str:
            return await future + "!"

        there = Caller.start_new(backend=other)
        waiting = there.call_soon(wait_there)
        await sleep(backend, 0.01)
        future.set_result("there")
        assert await waiting == "there!"

    run_with_caller(backend, main)


@both
def test_a_future_can_be_awaited_where_no_caller_is(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)

    async def main() -> int:
        return await caller.call_soon(lambda: 7)

    assert run(backend, main) == 7


def test_waiting_where_no_event_loop_runs_is_a_clear_error() -> None:
    future: Future[int] = Future()
    waiting = future.wait()
    with pytest.raises(RuntimeError, match="no asyncio or trio event loop runs in the thread"):
        waiting.send(None)


@both
def test_a_thousand_tasks_can_wait_for_one_future_without_a_thread_for_each(
    backend: Backend,
) -> None:
    async def main(caller: Caller) -> None:
        there = Caller.start_new(backend=backend)
        gate: Future[int] = Future()

        async def wait_for_gate() -> int:
            return await gate

        waiting = [there.call_soon(wait_for_gate) for _ in range(1000)]
        waiting += [caller.call_soon(wait_for_gate) for _ in range(1000)]
        await until(backend, lambda: there.scheduler.outstanding == 1000, "all of them wait")
        assert threading.active_count() <= 4
        gate.set_result(5)
        done, pending = await Caller.wait(waiting)
        assert not pending
        assert sum(future.result() for future in done) == 10_000

    run_with_caller(backend, main)


@both
def test_a_timeout_is_an_error_that_names_the_future(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        future = caller.call_soon(sleep, backend, DEADLINE_S)
        with pytest.raises(TimeoutError, match=r"Future<MainThread> was not done within 0.01 s"):
            await future.wait(timeout=0.01)
        await until(backend, future.done, "the call has ended")
        assert future.cancelled()

    run_with_caller(backend, main)


@pytest.mark.parametrize("bad", [-1, -0.5, math.nan])
def test_a_timeout_that_is_negative_or_no_number_is_a_value_error(bad: float) -> None:
    async def main(caller: Caller) -> None:
        future = caller.call_soon(asyncio.sleep, DEADLINE_S)
        with pytest.raises(ValueError, match="timeout must be zero or more seconds"):
            await future.wait(timeout=bad)
        with pytest.raises(ValueError, match="timeout must be zero or more seconds"):
            future.wait_sync(timeout=bad)
        assert not future.cancelled()

    run_with_caller("asyncio", main)


@pytest.mark.parametrize("bad", ["1", object(), True])
def test_a_timeout_of_another_type_is_a_type_error(bad: float) -> None:
    async def main(caller: Caller) -> None:
        future = caller.call_soon(asyncio.sleep, DEADLINE_S)
        with pytest.raises(TypeError, match="timeout must be a number of seconds"):
            await future.wait(timeout=bad)

    run_with_caller("asyncio", main)


def test_a_thread_can_block_until_a_future_is_done() -> None:
    caller = Caller.start_new(backend="asyncio")
    assert caller.call_later(0.01, lambda: 4).wait_sync() == 4
    assert cast("Any", caller.call_soon(lambda: 4).wait_sync(result=False)) is None


def test_blocking_can_time_out() -> None:
    caller = Caller.start_new(backend="asyncio")
    future = caller.call_soon(asyncio.sleep, DEADLINE_S)
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"was not done within 0.05 s"):
        future.wait_sync(timeout=0.05)
    assert time.monotonic() - begin < 5
    wait_until(future.done, "it is cancelled")


def test_blocking_the_thread_of_the_future_is_an_error() -> None:
    async def main(caller: Caller) -> None:
        future = caller.call_soon(asyncio.sleep, DEADLINE_S)
        with pytest.raises(RuntimeError, match="cannot be waited for by blocking 'MainThread'"):
            future.wait_sync()
        # Blocking another thread until the main thread has done something is one as well.
        with pytest.raises(DeadlockError, match="it belongs to the thread 'MainThread'"):
            await Caller.to_thread(future.wait_sync)

    run_with_caller("asyncio", main)


def test_a_thread_that_blocks_can_be_interrupted() -> None:
    """Tested with the pending exception that the kernel raises in a thread."""
    import ctypes

    idle = Caller.start_new(backend="asyncio")
    blocked = Caller.start_new(backend="asyncio")
    never: Future[None] = Future(idle.thread)
    call = blocked.call_soon(never.wait_sync)
    wait_until(lambda: call.executing, "the call runs")
    assert call.thread is blocked.thread
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(call.ident or 0), ctypes.py_object(KeyboardInterrupt)
    )
    wait_until(call.done, "the interrupt has ended the call")
    assert isinstance(call.exception(), KeyboardInterrupt)
    assert blocked.call_soon(lambda: "goes on").wait_sync(timeout=DEADLINE_S) == "goes on"
