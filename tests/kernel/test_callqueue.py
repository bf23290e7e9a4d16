"""Queues of calls: one after another, each in its own context, with a limit, until closed."""

from __future__ import annotations

import gc
import logging
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.callers import DEADLINE_S, awaits, both, run_with_caller, sleep, until, wait_until
from unstuck.caller import Caller, Future

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")
variable: ContextVar[str] = ContextVar("variable")


@both
def test_queued_calls_run_one_after_another(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        steps: list[tuple[int, str]] = []

        async def step(number: int, *, text: str = "") -> None:
            steps.append((number, "begin"))
            await sleep(backend, 0.001)
            steps.append((number, "end" + text))

        for number in range(3):
            assert caller.queue_call(step, number) is None
        caller.queue_call(step, 3, text="!")
        await until(backend, lambda: len(steps) == 8, "all have run")
        assert steps == [
            (0, "begin"),
            (0, "end"),
            (1, "begin"),
            (1, "end"),
            (2, "begin"),
            (2, "end"),
            (3, "begin"),
            (3, "end!"),
        ]

    run_with_caller(backend, main)


@both
def test_each_function_has_a_queue_of_its_own(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        gate: Future[None] = Future()
        ran: list[str] = []

        async def stand() -> None:
            await gate

        caller.queue_call(stand)
        caller.queue_call(stand)
        caller.queue_call(ran.append, "beside")
        await until(backend, lambda: ran == ["beside"], "the other queue goes on")
        gate.set_result(None)

    run_with_caller(backend, main)


@both
def test_each_queued_call_has_the_context_of_its_submission(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        seen: list[str] = []

        async def look() -> None:
            await sleep(backend, 0)
            seen.append(variable.get())

        for text in ("first", "second"):
            variable.set(text)
            caller.queue_call(look)
        variable.set("later")
        await until(backend, lambda: len(seen) == 2, "both have run")
        assert seen == ["first", "second"]

    run_with_caller(backend, main)


@both
def test_calls_can_be_queued_from_other_threads_in_their_order(backend: Backend) -> None:
    there = Caller.start_new(backend=backend)
    seen: list[int] = []

    async def note(number: int) -> None:
        await sleep(backend, 0)
        seen.append(number)

    for number in range(300):
        there.queue_call(note, number)
    wait_until(lambda: len(seen) == 300, "all have run")
    assert seen == list(range(300))


@both
def test_the_error_of_a_queued_call_is_logged_and_the_next_one_runs(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(caller: Caller) -> None:
        ran: list[int] = []

        async def step(number: int) -> None:
            await sleep(backend, 0)
            ran.append(number)
            if number == 0:
                raise ZeroDivisionError("queued")

        with caplog.at_level(logging.ERROR):
            caller.queue_call(step, 0)
            caller.queue_call(step, 1)
            await until(backend, lambda: ran == [0, 1], "both have run")
        assert "caller=MainThread" in caplog.text
        assert "step" in caplog.text
        assert "ZeroDivisionError: queued" in caplog.text

    run_with_caller(backend, main)


@both
def test_a_full_queue_refuses_and_names_the_caller(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        gate: Future[None] = Future()

        begun: list[int] = []

        async def stand(number: int) -> None:
            begun.append(number)
            await gate

        caller.queue_call(stand, 0, max_buffer_size=2)
        await until(backend, lambda: begun == [0], "the first one has begun")
        caller.queue_call(stand, 1)
        caller.queue_call(stand, 2)
        with pytest.raises(anyio.WouldBlock, match=r"Caller<MainThread>: 2 calls of .*stand wait"):
            caller.queue_call(stand, 3)
        gate.set_result(None)

    run_with_caller(backend, main)


@both
def test_waiting_for_room_keeps_the_order_and_loses_nothing(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        seen: list[int] = []
        most = 0
        sent = 0

        async def step(number: int) -> None:
            nonlocal most
            most = max(most, sent - number)
            await sleep(backend, 0)
            seen.append(number)

        for number in range(50):
            sending = caller.queue_call(step, number, max_buffer_size=3, wait=True)
            assert sending is not None
            await sending
            sent += 1
        await until(backend, lambda: len(seen) == 50, "all have run")
        assert seen == list(range(50))
        assert most <= 5

    run_with_caller(backend, main)


@both
def test_a_call_that_waits_for_room_can_be_withdrawn(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        gate: Future[None] = Future()
        begun: list[int] = []
        seen: list[int] = []

        async def step(number: int) -> None:
            begun.append(number)
            await gate
            seen.append(number)

        async def send(number: int) -> None:
            sending = caller.queue_call(step, number, max_buffer_size=1, wait=True)
            assert sending is not None
            await sending

        await send(0)
        await until(backend, lambda: begun == [0], "the first one has begun")
        await send(1)
        third = caller.call_soon(send, 2)
        await until(backend, lambda: awaits(caller, third), "there is no room")
        third.cancel()
        await third.wait(result=False)
        gate.set_result(None)
        await until(backend, lambda: len(seen) == 2, "the others have run")
        caller.queue_call(step, 3)
        await until(backend, lambda: len(seen) == 3, "and so has a later one")
        assert seen == [0, 1, 3]

    run_with_caller(backend, main)


@both
def test_a_closed_queue_drops_what_waits(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        gate: Future[None] = Future()
        begun: list[int] = []
        seen: list[int] = []

        async def step(number: int) -> None:
            begun.append(number)
            await gate
            seen.append(number)

        assert not caller.queue_exists(step)
        assert caller.queue_get(step) is None
        caller.queue_close(step)
        for number in range(3):
            caller.queue_call(step, number, max_buffer_size=3)
        await until(backend, lambda: begun == [0], "the first one has begun")
        caller.queue_call(step, 3)
        last = caller.queue_call(step, 4, wait=True)
        assert last is not None
        sending = caller.call_soon(lambda: last)
        closed = caller.queue_get(step)
        assert closed is not None
        assert caller.queue_exists(step)
        await until(backend, lambda: awaits(caller, sending), "there is no room")
        await Caller.to_thread(caller.queue_close, step)
        assert not caller.queue_exists(step)
        await closed
        with pytest.raises(anyio.ClosedResourceError, match=r"the queue of .*step was closed"):
            await sending
        gate.set_result(None)
        await until(backend, lambda: bool(seen), "the one that ran has ended")
        await caller.call_soon(lambda: None)
        assert begun == seen == [0]

    run_with_caller(backend, main)


@both
def test_a_queue_ends_with_its_function_or_the_object_of_its_method(backend: Backend) -> None:
    class Owner:
        ran = 0

        async def step(self) -> None:
            Owner.ran += 1

    async def main(caller: Caller) -> None:
        owner = Owner()

        async def step() -> None:
            Owner.ran += 1

        for number in range(2):
            caller.queue_call(owner.step)
            caller.queue_call(step)
            await until(
                backend,
                lambda number=number: Owner.ran == 2 * number + 2,  # type: ignore[misc]
                "they ran",
            )
        futures: list[Any] = [caller.queue_get(owner.step), caller.queue_get(step)]
        assert all(future is not None and not future.done() for future in futures)
        del owner, step

        def ended() -> bool:
            gc.collect()
            return all(future.done() for future in futures)

        await until(backend, ended, "both queues are closed")

    run_with_caller(backend, main)


def test_stopping_a_caller_closes_its_queues() -> None:
    caller = Caller.start_new(backend="asyncio")
    gate = threading.Event()
    caller.queue_call(gate.wait, DEADLINE_S)
    closed = caller.queue_get(gate.wait)
    assert closed is not None
    gate.set()
    caller.stop()
    assert closed.done()


@pytest.mark.parametrize(
    ("bad", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("3", TypeError)]
)
def test_a_limit_that_is_negative_or_no_number_is_refused(
    bad: object, kind: type[Exception]
) -> None:
    limit: Any = bad

    async def main(caller: Caller) -> None:
        said = r"Caller<MainThread>: max_buffer_size must be (zero or more|a number), not"
        with pytest.raises(kind, match=said):
            caller.queue_call(print, max_buffer_size=limit)

    run_with_caller("asyncio", main)
