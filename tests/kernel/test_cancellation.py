"""Cancelling futures: the one rule, and what happens to the call."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from kernel.callers import DEADLINE_S, awaits, both, run_with_caller, sleep, until, wait_until
from unstuck.caller import Caller
from unstuck.cancelled import FutureCancelledError
from unstuck.future import Future, InvalidStateError

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


@both
def test_the_only_waiter_that_is_cancelled_cancels_the_call(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        work = caller.call_soon(sleep, backend, DEADLINE_S)
        waiter = caller.call_soon(work.wait)
        await until(backend, lambda: waiter_waits(waiter), "the waiter waits")
        waiter.cancel()
        await until(backend, work.done, "the call is over")
        assert work.cancelled()

    run_with_caller(backend, main)


def waiter_waits(waiter: Future[Any]) -> bool:
    return bool(waiter.waits_for)


@both
def test_a_cancelled_waiter_does_not_cancel_what_others_wait_for(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        gate: Future[int] = Future()

        async def work_() -> int:
            return await gate

        work = caller.call_soon(work_)
        waiters = [caller.call_soon(work.wait) for _ in range(2)]
        await until(backend, lambda: all(map(waiter_waits, waiters)), "both wait")
        waiters[0].cancel()
        with pytest.raises(FutureCancelledError):
            await waiters[0]
        assert not work.cancelled()
        gate.set_result(1)
        assert await waiters[1] == 1

    run_with_caller(backend, main)


@both
def test_the_last_of_several_waiters_cancels(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        work = caller.call_soon(sleep, backend, DEADLINE_S)
        waiters = [caller.call_soon(work.wait) for _ in range(3)]
        await until(backend, lambda: all(map(waiter_waits, waiters)), "they wait")
        for waiter in waiters:
            assert not work.cancelled()
            waiter.cancel()
            await waiter.wait(result=False)
        assert work.cancelled()

    run_with_caller(backend, main)


@both
def test_a_shielded_waiter_cancels_nothing(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        gate: Future[int] = Future()
        with pytest.raises(TimeoutError):
            await gate.wait(timeout=0.01, shield=True)
        assert not gate.cancelled()
        with pytest.raises(TimeoutError):
            await gate.wait(timeout=0.01)
        assert gate.cancelled()

    run_with_caller(backend, main)


def test_a_done_callback_counts_as_waiting() -> None:
    async def main(caller: Caller) -> None:
        future: Future[int] = Future()
        heard: list[Future[int]] = []
        future.add_done_callback(heard.append)
        with pytest.raises(TimeoutError):
            await future.wait(timeout=0.01)
        assert not future.cancelled()
        future.set_result(1)
        assert heard == [future]

    run_with_caller("asyncio", main)


@both
def test_a_call_is_done_only_when_its_cleanup_is(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        steps: list[str] = []

        async def work() -> None:
            try:
                await sleep(backend, DEADLINE_S)
            finally:
                with anyio.CancelScope(shield=True):
                    steps.append("cleanup")
                    await sleep(backend, 0.02)
                    steps.append("end")

        future = caller.call_soon(work)
        await until(backend, lambda: awaits(caller, future), "it awaits")
        assert future.cancel()
        assert future.cancelled()
        assert not future.done()
        with pytest.raises(FutureCancelledError):
            await future
        assert steps == ["cleanup", "end"]

    run_with_caller(backend, main)


@both
def test_a_call_that_has_not_started_never_starts_once_cancelled(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        ran: list[int] = []

        async def work() -> None:
            ran.append(1)

        futures = [caller.call_soon(ran.append, 2), caller.call_soon(work)]
        for future in futures:
            assert future.cancel("no")
            assert future.done()
        await caller.call_soon(lambda: None)
        await sleep(backend, 0.01)
        assert ran == []

    run_with_caller(backend, main)


def test_a_call_that_does_not_await_runs_on_and_its_result_is_dropped() -> None:
    caller = Caller.start_new(backend="asyncio")
    gate = threading.Event()
    future = caller.call_soon(gate.wait, DEADLINE_S)
    wait_until(lambda: future.executing, "it runs")
    assert future.cancel("too late")
    assert not future.done()
    gate.set()
    wait_until(future.done, "it has ended")
    with pytest.raises(FutureCancelledError, match="too late"):
        future.result()


def test_a_call_that_swallows_its_cancellation_stays_cancelled() -> None:
    async def main(caller: Caller) -> None:
        async def work() -> int:
            try:
                await asyncio.sleep(DEADLINE_S)
            except asyncio.CancelledError:
                return 3
            return 4

        future = caller.call_soon(work)
        await asyncio.sleep(0.01)
        future.cancel()
        with pytest.raises(FutureCancelledError):
            await future

    run_with_caller("asyncio", main)


@both
def test_a_call_cancelled_from_another_thread_ends(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)
    future = caller.call_soon(sleep, backend, DEADLINE_S)
    wait_until(lambda: awaits(caller, future), "it awaits")
    future.cancel()
    wait_until(future.done, "it has ended")
    assert future.cancelled()


def test_the_error_of_a_cleanup_is_the_cause_of_the_cancellation_error() -> None:
    async def main(caller: Caller) -> None:
        async def work() -> None:
            try:
                await asyncio.sleep(DEADLINE_S)
            finally:
                raise ValueError("in the cleanup")

        future = caller.call_soon(work)
        await asyncio.sleep(0.01)
        future.cancel()
        with pytest.raises(FutureCancelledError) as caught:
            await future
        assert isinstance(caught.value.__cause__, ValueError)

    run_with_caller("asyncio", main)


@both
def test_a_users_cancel_scope_is_cancelled_with_the_future(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        future: Future[None] = Future()
        with anyio.CancelScope() as scope:
            future.set_cancel_scope(scope)
            with pytest.raises(InvalidStateError):
                future.set_cancel_scope(scope)
            await Caller.to_thread(future.cancel)
            await sleep(backend, DEADLINE_S)
        assert scope.cancel_called
        assert future.cancelled()

    run_with_caller(backend, main)


def test_a_cancelled_future_takes_no_cancel_scope() -> None:
    future: Future[None] = Future()
    future.cancel()
    with pytest.raises(InvalidStateError):
        future.set_cancel_scope(trio.CancelScope())
