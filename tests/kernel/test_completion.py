"""Waiting for several futures: as they get done, all, the first, the first error."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from kernel.callers import DEADLINE_S, both, run_with_caller, sleep, until
from unstuck.caller import Caller, Future
from unstuck.cancelled import FutureCancelledError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


@both
def test_futures_are_given_as_they_get_done(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        async def answer(number: int) -> int:
            await sleep(backend, number * 0.02)
            return number

        for kind in (list, tuple, set):
            items = kind(caller.call_soon(answer, number) for number in (3, 1, 0, 2))
            given = [await future async for future in Caller.as_completed(items)]
            assert given == [0, 1, 2, 3]

    run_with_caller(backend, main)


@both
def test_nothing_to_wait_for_ends_at_once(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        async def none() -> AsyncGenerator[Future[int], None]:
            for future in list[Future[int]]():
                yield future

        empty: tuple[Any, ...] = ([], iter([]), none())
        for items in empty:
            assert [future async for future in Caller.as_completed(items)] == []
        assert await Caller.wait([]) == (set(), set())

    run_with_caller(backend, main)


@both
def test_futures_of_many_threads_are_given_too(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        futures = [Caller.to_thread(int, n) for n in range(30)]
        seen = {await future async for future in Caller.as_completed(futures)}
        assert seen == set(range(30))

    run_with_caller(backend, main)


@pytest.mark.parametrize("limit", [1, 3])
@both
def test_a_generator_is_taken_from_as_there_is_room(backend: Backend, limit: int) -> None:
    async def main(caller: Caller) -> None:
        made = 0
        given = 0
        most = 0

        def make() -> Iterator[Future[int]]:
            nonlocal made, most
            for number in range(12):
                made += 1
                most = max(most, made - given)
                yield Caller.to_thread(int, number)

        async def make_async() -> AsyncGenerator[Future[int], None]:
            for future in make():
                await sleep(backend, 0)
                yield future

        for items in (make(), make_async()):
            made = given = most = 0
            async for future in Caller.as_completed(items, max_concurrent=limit):
                assert future.done()
                given += 1
            assert given == 12
            assert most <= limit + 1

    run_with_caller(backend, main)


def test_there_must_be_room_for_one() -> None:
    with pytest.raises(ValueError, match="max_concurrent must be 1 or more"):
        Caller.as_completed([], max_concurrent=0)


@both
def test_what_is_not_done_at_the_end_is_cancelled_unless_shielded(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        for shield in (False, True):
            quick = caller.call_soon(lambda: 1)
            slow = caller.call_soon(sleep, backend, DEADLINE_S)
            watched: list[Future[Any]] = [quick, slow]
            given = Caller.as_completed(watched, shield=shield)
            async for future in given:
                assert future is quick
                break
            await given.aclose()
            assert slow.cancelled() is not shield
            slow.cancel()
            await slow.wait(result=False)

    run_with_caller(backend, main)


@both
def test_the_call_that_iterates_is_left_out(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        async def iterate() -> int:
            mine = Caller.current_future()
            assert mine is not None
            return len([f async for f in Caller.as_completed([mine, caller.call_soon(print)])])

        assert await caller.call_soon(iterate) == 1

    run_with_caller(backend, main)


@both
def test_the_error_of_a_generator_comes_out(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        async def fail() -> AsyncGenerator[Future[int], None]:
            yield caller.call_soon(lambda: 1)
            raise ZeroDivisionError("of the generator")

        given = Caller.as_completed(fail())
        assert await (await anext(given)) == 1
        with pytest.raises(ZeroDivisionError, match="of the generator"):
            await anext(given)

    run_with_caller(backend, main)


@both
def test_other_awaitables_are_called_in_the_current_caller(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        async def where(number: int) -> tuple[int, str]:
            await sleep(backend, 0)
            return number, threading.current_thread().name

        done, pending = await caller.wait([where(1), where(2)])
        assert not pending
        assert {future.result() for future in done} == {(1, "MainThread"), (2, "MainThread")}
        bad: Any = [3]
        with pytest.raises(TypeError, match="cannot wait for 3"):
            await Caller.wait(bad)

    run_with_caller(backend, main)


@both
def test_waiting_for_all_gives_the_done_and_the_pending(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        quick = [caller.call_soon(lambda: 1), Caller.to_thread(lambda: 1)]
        done, pending = await Caller.wait(quick)
        assert done == set(quick)
        assert pending == set()
        slow = caller.call_soon(sleep, backend, DEADLINE_S)
        both_kinds: list[Future[Any]] = [*quick, slow]
        begin = time.monotonic()
        late_done, late = await Caller.wait(both_kinds, timeout=0.02)
        assert time.monotonic() - begin >= 0.02
        assert late_done == set(quick)
        assert late == {slow}
        assert not slow.cancelled()
        slow.cancel()

    run_with_caller(backend, main)


@both
def test_waiting_can_end_with_the_first_one_or_the_first_error(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        slow = caller.call_soon(sleep, backend, DEADLINE_S)
        quick: Future[None] = caller.call_later(0.01, lambda: None)
        failing = caller.call_later(0.03, fail)
        items = [slow, quick, failing]
        done, pending = await Caller.wait(items, return_when="FIRST_COMPLETED")
        assert done == {quick}
        assert pending == {slow, failing}
        done, pending = await Caller.wait(items, return_when="FIRST_EXCEPTION")
        assert done == {quick, failing}
        assert pending == {slow}
        slow.cancel()
        await until(backend, slow.done, "it is cancelled")
        assert await Caller.wait([slow], return_when="FIRST_EXCEPTION") == ({slow}, set())
        with pytest.raises(FutureCancelledError):
            slow.result()

    run_with_caller(backend, main)


def test_bad_arguments_are_clear_errors() -> None:
    async def main(caller: Caller) -> None:
        unknown: Any = "SOMETIME"
        with pytest.raises(ValueError, match="unknown return_when 'SOMETIME': it is one of ALL_"):
            await Caller.wait([], return_when=unknown)
        with pytest.raises(ValueError, match="timeout must be zero or more"):
            await Caller.wait([], timeout=-1)

    run_with_caller("asyncio", main)
