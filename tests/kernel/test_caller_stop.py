"""Callers end: by themselves, by others, by force, with calls that go on."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.callers import DEADLINE_S, awaits, both, run, run_with_caller, sleep, wait_until, where
from unstuck.caller import Caller, Future
from unstuck.cancelled import FutureCancelledError

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


@both
def test_stopping_from_another_thread_waits_for_the_end_and_cancels_all_calls(
    backend: Backend,
) -> None:
    caller = Caller.start_new(backend=backend)
    futures: list[Future[Any]] = [
        caller.call_soon(sleep, backend, DEADLINE_S),
        caller.call_later(DEADLINE_S, where),
    ]
    wait_until(lambda: all(awaits(caller, future) for future in futures), "both wait")
    caller.stop()
    assert caller.stopped
    assert not caller.running
    assert not caller.thread.is_alive()
    for future in futures:
        with pytest.raises(FutureCancelledError):
            future.result()
    assert caller not in Caller.all_callers(running_only=False)
    caller.stop()


@both
def test_what_was_submitted_while_a_caller_stops_is_cancelled_not_lost(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)
    gate = threading.Event()
    running = caller.call_soon(gate.wait, DEADLINE_S)
    wait_until(lambda: running.executing, "the thread is busy")
    queued = [caller.call_soon(where) for _ in range(10)]
    stopping = threading.Thread(target=caller.stop)
    stopping.start()
    wait_until(lambda: caller.stopped, "it takes no more calls")
    gate.set()
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()
    assert running.done()
    assert all(future.cancelled() and future.done() for future in queued)


@both
def test_a_caller_can_stop_itself(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)
    future = caller.call_soon(caller.stop)
    wait_until(lambda: not caller.thread.is_alive(), "it has ended")
    assert future.done()


@both
def test_stopping_ends_the_body_of_the_context_manager(backend: Backend) -> None:
    reached: list[str] = []

    async def main() -> None:
        async with Caller(create=True) as caller:
            caller.call_later(0.01, caller.stop)
            await sleep(backend, DEADLINE_S)
            reached.append("not this")
        reached.append("behind")
        await sleep(backend, 0)
        reached.append("and no cancellation is left over")

    run(backend, main)
    assert reached == ["behind", "and no cancellation is left over"]


@both
def test_stopping_at_the_end_of_the_body_leaves_no_cancellation_behind(backend: Backend) -> None:
    async def main() -> str:
        async with Caller(create=True) as caller:
            caller.stop()
        await sleep(backend, 0.001)
        return "went on"

    assert run(backend, main) == "went on"


@both
def test_an_error_of_the_body_comes_out_as_it_is(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        caller.call_soon(sleep, backend, DEADLINE_S)
        raise ZeroDivisionError("of the body")

    with pytest.raises(ZeroDivisionError, match="of the body"):
        run_with_caller(backend, main)


@both
def test_a_cancellation_from_outside_goes_through_the_body(backend: Backend) -> None:
    async def main() -> str:
        with anyio.move_on_after(0.02) as scope:
            async with Caller(create=True) as caller:
                await caller.call_soon(sleep, backend, DEADLINE_S)
        return "timed out" if scope.cancelled_caught else "lost"

    assert run(backend, main) == "timed out"


def test_a_protected_caller_is_stopped_by_force_only() -> None:
    caller = Caller.start_new(protected=True, backend="asyncio")
    assert caller.protected
    caller.stop()
    Caller.stop_all()
    assert caller.running
    caller.stop(force=True)
    assert caller.stopped


@both
def test_all_callers_are_listed_and_stopped(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        pass

    first = Caller.start_new(backend=backend)
    second = Caller.start_new(backend=backend)
    assert Caller.all_callers() == [first, second]
    Caller.stop_all()
    assert Caller.all_callers() == []
    assert not first.thread.is_alive()
    assert not second.thread.is_alive()
    run_with_caller(backend, main)


@both
def test_callers_that_have_not_begun_are_listed_on_demand(backend: Backend) -> None:
    async def main() -> None:
        caller = Caller(create=True)
        assert Caller.all_callers() == []
        assert Caller.all_callers(running_only=False) == [caller]
        held = caller.call_soon(where)
        caller.stop()
        with pytest.raises(FutureCancelledError, match="Caller<MainThread> has stopped"):
            held.result()

    run(backend, main)


def test_a_call_that_ignores_its_cancellation_is_cancelled_again() -> None:
    caller = Caller.start_new(backend="asyncio")
    swallowed: list[int] = []

    async def stubborn() -> None:
        while len(swallowed) < 3:
            try:
                await asyncio.sleep(DEADLINE_S)
            except asyncio.CancelledError:
                swallowed.append(1)

    future = caller.call_soon(stubborn)
    wait_until(lambda: awaits(caller, future), "it awaits")
    caller.stop()
    assert len(swallowed) == 3
    assert not caller.thread.is_alive()


def test_cancelling_all_tasks_of_a_loop_loses_no_future() -> None:
    """Also that of a call whose task has not taken its first step."""
    caller = Caller.start_new(backend="asyncio")

    async def cancel_all() -> None:
        begun = [Caller().call_soon(asyncio.sleep, DEADLINE_S) for _ in range(3)]
        await asyncio.sleep(0)
        mine = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not mine and "_serve" not in repr(task):
                task.cancel()
        futures.extend(begun)

    futures: list[Future[None]] = []
    caller.call_soon(cancel_all).wait_sync(timeout=DEADLINE_S)
    wait_until(lambda: all(future.done() for future in futures), "all are cancelled")
    assert all(future.cancelled() for future in futures)
    assert caller.call_soon(where).wait_sync(timeout=DEADLINE_S) == caller.thread.name


def test_a_caller_whose_thread_is_gone_can_be_forgotten() -> None:
    """As after a fork, which takes the forking thread along and no other."""
    made: list[Caller] = []
    futures: list[Future[None]] = []

    async def leave_it() -> None:
        caller = await Caller(create=True).__aenter__()
        made.append(caller)
        futures.append(caller.call_later(DEADLINE_S, lambda: None))

    def body() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_it())
        loops.append(loop)

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join(DEADLINE_S)
    alive = Caller.start_new(backend="asyncio")
    assert not made[0].running
    futures.append(made[0].call_soon(lambda: None))
    Caller.forget_dead_threads()
    assert all(future.done() and future.cancelled() for future in futures)
    assert Caller.all_callers(running_only=False) == [alive]
    loops[0].close()
