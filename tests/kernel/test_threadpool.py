"""The pool of idle threads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from kernel.callers import both, run_with_caller, sleep, until, wait_until, where
from unstuck.caller import Caller, Future

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


@both
def test_to_thread_calls_in_another_thread_and_uses_it_again(backend: Backend) -> None:
    async def where_later() -> str:
        await sleep(backend, 0.001)
        return where()

    async def main(caller: Caller) -> None:
        names = {
            await Caller.to_thread(where),
            await caller.to_thread(where),
            await Caller.to_thread(where_later),
            await Caller.to_thread_by_name(None, where),
        }
        assert len(names) == 1
        assert re.fullmatch(r"Thread-\d+ \(anyio_run_caller\)", names.pop())
        assert await Caller.to_thread_by_name("by name", where) == "by name"
        assert await Caller.to_thread_by_name("MainThread", where) == "MainThread"

    run_with_caller(backend, main)


def test_the_pool_keeps_backends_apart() -> None:
    one = Caller.start_new(backend="asyncio")
    other = Caller.start_new(backend="trio")
    for _ in range(3):
        for caller in (one, other):
            future = caller.to_thread(lambda: Caller().backend)
            wait_until(future.done, "the call has ended")
            assert future.result() == caller.backend


@both
def test_the_pool_keeps_so_many_idle_threads_and_no_more(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        gate: Future[None] = Future()

        async def wait_for_gate() -> None:
            await gate

        count = Caller.MAX_IDLE_POOL_INSTANCES + 4
        futures = [Caller.to_thread(wait_for_gate) for _ in range(count)]
        assert len({future.thread for future in futures}) == count
        gate.set_result(None)
        await Caller.wait(futures)
        alive = Caller.MAX_IDLE_POOL_INSTANCES + 1
        await until(backend, lambda: len(Caller.all_callers()) == alive, "the others have stopped")
        await until(
            backend,
            lambda: sum(future.thread.is_alive() for future in futures) == alive - 1,
            "and so have their threads",
        )

    run_with_caller(backend, main)


@both
def test_a_pool_thread_with_calls_of_its_own_is_kept(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        gate: Future[str] = Future()

        async def wait_for_gate() -> str:
            return await gate

        def start_another() -> Future[str]:
            return Caller().call_soon(wait_for_gate)

        limit = Caller.MAX_IDLE_POOL_INSTANCES
        try:
            Caller.MAX_IDLE_POOL_INSTANCES = 0
            started: list[Future[str]] = []
            await Caller.to_thread(lambda: started.append(start_another()))
            await sleep(backend, 0.02)
            gate.set_result("undisturbed")
            assert await started[0] == "undisturbed"
        finally:
            Caller.MAX_IDLE_POOL_INSTANCES = limit

    run_with_caller(backend, main)
