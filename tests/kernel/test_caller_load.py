"""A Caller under load: nothing is lost, and the order of each thread's calls is kept."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from kernel.callers import DEADLINE_S, both, run_with_caller, sleep, wait_until
from unstuck.caller import Caller, Future

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")

THREADS = 8
CALLS = 100_000
LOAD_DEADLINE_S = 120.0


def submit_from_threads(work: Callable[[int], None]) -> None:
    """Run ``work(thread number)`` in several threads at the same time."""
    gate = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def body(number: int) -> None:
        try:
            gate.wait(DEADLINE_S)
            work(number)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=body, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LOAD_DEADLINE_S)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


@both
def test_a_hundred_thousand_calls_from_eight_threads_lose_nothing_and_keep_their_order(
    backend: Backend,
) -> None:
    caller = Caller.start_new(backend=backend)
    each = CALLS // THREADS
    seen: list[list[int]] = [[] for _ in range(THREADS)]
    futures: list[list[Future[int]]] = [[] for _ in range(THREADS)]

    def call(thread: int, number: int) -> int:
        seen[thread].append(number)
        return number

    def submit(thread: int) -> None:
        for number in range(each):
            futures[thread].append(caller.call_soon(call, thread, number))

    submit_from_threads(submit)
    last = [part[-1] for part in futures]
    wait_until(lambda: all(future.done() for future in last), "the last ones have run")
    assert seen == [list(range(each))] * THREADS
    for part in futures:
        assert [future.result() for future in part] == list(range(each))


@both
def test_calls_of_all_kinds_from_eight_threads_lose_nothing(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)
    each = 300
    direct: list[int] = []
    futures: list[list[Future[int]]] = [[] for _ in range(THREADS)]

    async def answer(number: int) -> int:
        await sleep(backend, 0)
        return number

    def submit(thread: int) -> None:
        chance = random.Random(thread)
        for number in range(each):
            match chance.randrange(5):
                case 0:
                    future = caller.call_soon(answer, number)
                case 1:
                    future = caller.call_later(chance.random() * 0.01, answer, number)
                case 2:
                    future = caller.to_thread(answer, number)
                case 3:
                    future = caller.call_soon(partial(answer, number))
                case _:
                    future = caller.call_soon(int, number)
            futures[thread].append(future)
            caller.call_direct(direct.append, 1)

    submit_from_threads(submit)
    wait_until(lambda: all(f.done() for part in futures for f in part), "all have ended")
    for part in futures:
        assert [future.result() for future in part] == list(range(each))
    wait_until(lambda: len(direct) == THREADS * each, "all direct calls were made")


@both
def test_cancelling_at_random_leaves_no_future_behind(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)
    futures: list[list[Future[Any]]] = [[] for _ in range(THREADS)]

    async def wait_a_little(number: int) -> int:
        await sleep(backend, number % 7 * 0.001)
        return number

    def submit(thread: int) -> None:
        chance = random.Random(thread)
        for number in range(200):
            future = caller.call_soon(wait_a_little, number)
            futures[thread].append(future)
            if chance.random() < 0.5:
                chance.choice(futures[thread]).cancel()

    submit_from_threads(submit)
    wait_until(lambda: all(f.done() for part in futures for f in part), "all have ended")
    for part in futures:
        for number, future in enumerate(part):
            assert future.cancelled() or future.result() == number
    assert caller.call_soon(lambda: "goes on").wait_sync(timeout=DEADLINE_S) == "goes on"


@both
def test_a_thousand_threads_calls_through_the_pool_at_once(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        waves = [[Caller.to_thread(int, n) for n in range(25)] for _ in range(40)]
        for wave in waves:
            done, _ = await Caller.wait(wave)
            assert {future.result() for future in done} == set(range(25))

    run_with_caller(backend, main)


@both
def test_a_caller_that_stops_under_load_leaves_no_future_pending(backend: Backend) -> None:
    from anyio import ClosedResourceError

    for _ in range(5):
        caller = Caller.start_new(backend=backend)
        futures: list[Future[None]] = []

        def submit(
            thread: int,
            caller: Caller = caller,
            futures: list[Future[None]] = futures,
        ) -> None:
            if thread == 0:
                caller.stop()
                return
            for _ in range(500):
                try:
                    futures.append(caller.call_soon(sleep, backend, thread % 2 * 0.001))
                except ClosedResourceError:
                    return

        submit_from_threads(submit)
        for future in futures:
            wait_until(future.done, "it has ended")
