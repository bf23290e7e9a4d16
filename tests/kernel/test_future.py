"""A future: its outcomes, and who hears of them."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from kernel.callers import DEADLINE_S, awaits, both, run_with_caller, sleep, until
from unstuck.caller import Caller
from unstuck.cancelled import FutureCancelledError
from unstuck.future import Future, InvalidStateError

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


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


@both
def test_messages_are_joined_too_where_the_call_had_not_begun(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        future = caller.call_soon(sleep, backend, DEADLINE_S)
        assert future.cancel("one")
        assert future.cancel("two")
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
