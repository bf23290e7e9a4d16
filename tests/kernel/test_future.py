"""A future: outcomes, waiting in any thread, the one rule of cancellation, callbacks, deadlocks."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
import trio

from kernel.callers import (
    BACKENDS,
    DEADLINE_S,
    awaits,
    nothing_left,
    run,
    run_with_caller,
    sleep,
    until,
    wait_until,
)
from unstuck.caller import Caller
from unstuck.cancelled import FutureCancelledError
from unstuck.deadlock import DeadlockError
from unstuck.future import Future, InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unstuck.typing import Backend

both = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield from nothing_left()


def test_the_result_that_was_set_is_given() -> None:
    future: Future[int] = Future()
    assert not future.done()
    future.set_result(3)
    assert future.done()
    assert future.result() == 3
    assert future.exception() is None
    assert not future.cancelled()


def test_the_error_that_was_set_is_raised_each_time_with_its_own_traceback() -> None:
    future: Future[int] = Future()
    future.set_exception(ZeroDivisionError("zero"))
    lengths: list[int] = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="zero") as caught:
            future.result()
        lengths.append(len(caught.traceback))
    assert len(set(lengths)) == 1
    assert isinstance(future.exception(), ZeroDivisionError)


def test_the_result_of_a_future_that_is_not_done_is_an_invalid_state() -> None:
    future: Future[int] = Future()
    for ask in (future.result, future.exception):
        with pytest.raises(InvalidStateError, match="is not done"):
            ask()


def test_a_second_outcome_is_refused_and_changes_nothing() -> None:
    future: Future[int] = Future()
    future.set_result(1)
    with pytest.raises(InvalidStateError, match="has an outcome already"):
        future.set_result(2)
    with pytest.raises(InvalidStateError, match="has an outcome already"):
        future.set_exception(ValueError())
    assert future.result() == 1


def test_of_many_threads_that_set_a_result_one_wins() -> None:
    async def main(caller: Caller) -> None:
        for _ in range(50):
            future: Future[int] = Future(caller.thread)
            gate = threading.Barrier(4)
            wins: list[int] = []

            def compete(number: int, future: Future[int], gate: threading.Barrier) -> None:
                gate.wait(DEADLINE_S)
                try:
                    future.set_result(number)
                except InvalidStateError:
                    return
                wins.append(number)  # noqa: B023 - read before the next round

            threads = [threading.Thread(target=compete, args=(n, future, gate)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(DEADLINE_S)
            assert wins == [await future]

    run_with_caller("asyncio", main)


def test_a_cancelled_future_is_done_and_ignores_a_later_outcome() -> None:
    future: Future[int] = Future()
    assert future.cancel("first")
    assert future.done()
    assert future.cancelled()
    future.set_result(1)
    for ask in (future.result, future.exception):
        with pytest.raises(FutureCancelledError, match="first"):
            ask()
    assert isinstance(FutureCancelledError(), anyio.ClosedResourceError)


def test_a_future_with_an_outcome_cannot_be_cancelled() -> None:
    future: Future[int] = Future()
    future.set_result(1)
    assert not future.cancel()
    assert future.result() == 1


@both
def test_messages_of_several_cancellations_are_joined_by_newlines(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        future = caller.call_soon(sleep, backend, DEADLINE_S)
        await until(backend, lambda: awaits(caller, future), "it awaits")
        future.cancel("one")
        future.cancel()
        future.cancel("two")
        assert future.cancelled()
        with pytest.raises(FutureCancelledError, match=r"^one\ntwo$"):
            await future

    run_with_caller(backend, main)


def test_a_future_can_be_referenced_weakly_and_has_no_dictionary() -> None:
    future: Future[int] = Future()
    reference = weakref.ref(future)
    assert not hasattr(future, "__dict__")
    del future
    gc.collect()
    assert reference() is None


def test_the_traceback_of_an_error_begins_in_the_users_code() -> None:
    async def main(caller: Caller) -> None:
        def fail() -> None:
            raise ValueError

        async def fail_later() -> None:
            await asyncio.sleep(0)
            fail()

        for function in (fail, fail_later):
            future = caller.call_soon(function)
            await future.wait(result=False)
            error = future.exception()
            assert error is not None
            assert error.__traceback__ is not None
            assert error.__traceback__.tb_frame.f_code is function.__code__

    run_with_caller("asyncio", main)


def test_the_representation_names_thread_and_state() -> None:
    future: Future[int] = Future()
    assert repr(future) == "Future<MainThread pending>"
    future.set_result(1)
    assert repr(future) == "Future<MainThread result>"


# Waiting


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


# The one rule of cancellation


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
    return waiter.waits_for is not None


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


# Outcomes from other threads, and callbacks


def test_setting_from_a_thread_when_the_owner_has_no_caller_is_an_error() -> None:
    future: Future[None] = Future(threading.Thread(name="elsewhere"))
    with pytest.raises(RuntimeError, match="Caller<elsewhere> does not exist"):
        future.set_result(None)
    with pytest.raises(RuntimeError, match="Caller<elsewhere> does not exist"):
        future.get_caller()
    assert not future.done()


@both
def test_callbacks_run_in_the_futures_thread_the_last_added_first(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        future: Future[int] = Future()
        calls: list[tuple[int, str]] = []

        def note(number: int, done: Future[int]) -> None:
            assert done is future
            calls.append((number, threading.current_thread().name))

        for number in range(3):
            future.add_done_callback(partial(note, number))
        await Caller.to_thread(future.set_result, 1)
        await until(backend, lambda: len(calls) == 3, "all have been called")
        assert calls == [(2, "MainThread"), (1, "MainThread"), (0, "MainThread")]
        future.add_done_callback(partial(note, 4))
        assert len(calls) == 3
        await until(backend, lambda: len(calls) == 4, "it was called later")

    run_with_caller(backend, main)


def test_removing_a_callback_tells_how_often_it_was_there() -> None:
    future: Future[int] = Future()
    calls: list[object] = []
    for _ in range(2):
        future.add_done_callback(calls.append)
    assert future.remove_done_callback(calls.append) == 2
    assert future.remove_done_callback(calls.append) == 0
    future.set_result(1)
    assert calls == []


def test_the_error_of_a_callback_is_logged_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: object) -> None:
        raise KeyboardInterrupt("in a callback")

    future: Future[int] = Future()
    calls: list[object] = []
    future.add_done_callback(calls.append)
    future.add_done_callback(fail)
    with caplog.at_level(logging.ERROR):
        future.set_result(1)
    assert calls == [future]
    assert "in a callback" in caplog.text


# Deadlocks


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
