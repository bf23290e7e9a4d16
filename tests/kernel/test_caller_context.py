"""A call runs in a copy of the context of its submission."""

from __future__ import annotations

import contextvars
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import sniffio

from kernel.callers import BACKENDS, DEADLINE_S, both, run_with_caller, sleep
from unstuck.caller import Caller, Future

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")
variable: ContextVar[str] = ContextVar("variable", default="unset")


@both
def test_a_call_sees_a_copy_of_the_context_of_its_submission(backend: Backend) -> None:
    async def look_later() -> str:
        await sleep(backend, 0)
        seen = variable.get()
        variable.set("changed in the call")
        return seen

    def look() -> str:
        return variable.get()

    async def main(caller: Caller) -> None:
        for submit in (caller.call_soon, Caller.to_thread):
            variable.set("one")
            first, later = submit(look), submit(look_later)
            variable.set("two")
            assert (await first, await later) == ("one", "one")
            assert variable.get() == "two"
        variable.set("delayed")
        delayed = caller.call_later(0.001, look)
        variable.set("after")
        assert await delayed == "delayed"

    run_with_caller(backend, main)


@both
def test_a_direct_call_and_a_new_thread_have_no_context_of_others(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        variable.set("of a cell")
        seen: list[str] = []
        there = Caller.start_new(backend=backend)
        there.call_direct(lambda: seen.append(variable.get()))
        await there.call_soon(lambda: None)
        assert seen == ["unset"]
        assert await there.call_soon(variable.get) == "of a cell"

    run_with_caller(backend, main)


@pytest.mark.parametrize("other", BACKENDS)
@both
def test_the_library_that_a_call_sees_is_that_of_its_own_loop(
    backend: Backend, other: Backend
) -> None:
    async def look_later() -> str:
        await anyio.sleep(0)
        return sniffio.current_async_library()

    async def main() -> tuple[str, str]:
        there = Caller.start_new(backend=other)
        return (
            await there.call_soon(sniffio.current_async_library),
            await there.call_soon(look_later),
        )

    # anyio.run leaves the name of its backend in the context, which the call inherits.
    assert anyio.run(main, backend=backend) == (other, other)


@both
def test_the_current_future_is_that_of_the_call(backend: Backend) -> None:
    async def current_later() -> Future[Any] | None:
        await sleep(backend, 0)
        return Caller.current_future()

    async def main(caller: Caller) -> None:
        seen: list[Future[Any] | None] = []
        future = caller.call_soon(lambda: seen.append(Caller.current_future()))
        await future
        assert seen == [future]
        inside = caller.call_soon(current_later)
        assert await inside is inside
        assert Caller.current_future() is None

    run_with_caller(backend, main)


def test_contexts_that_are_entered_already_do_no_harm() -> None:
    caller = Caller.start_new(backend="asyncio")
    context = contextvars.copy_context()

    def submit() -> Future[str]:
        variable.set("inner")
        return caller.call_soon(variable.get)

    assert context.run(submit).wait_sync(timeout=DEADLINE_S) == "inner"
