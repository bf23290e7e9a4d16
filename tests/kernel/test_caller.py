"""Which Caller a thread has, and direct calls."""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.callers import DEADLINE_S, both, run, run_with_caller, sleep, until
from unstuck.caller import Caller

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")
variable: ContextVar[str] = ContextVar("variable", default="unset")


def test_a_thread_without_a_caller_is_told_how_to_get_one() -> None:
    with pytest.raises(RuntimeError, match=r"Caller<MainThread> does not exist: .*start_new"):
        Caller()
    with pytest.raises(RuntimeError, match="no asyncio or trio event loop runs here"):
        Caller(create=True)


@both
def test_a_thread_has_one_caller(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        assert Caller() is caller
        assert Caller(thread=threading.current_thread()) is caller
        assert Caller(create=True, protected=True) is caller
        assert not caller.protected
        assert caller.backend == backend
        assert repr(caller) == "Caller<MainThread>"
        assert await Caller.to_thread(lambda: Caller(thread=caller.thread)) is caller
        assert await Caller.to_thread(Caller) is not caller

    run_with_caller(backend, main)


@both
def test_a_caller_runs_inside_its_context_manager_only(backend: Backend) -> None:
    async def main() -> Caller:
        caller = Caller(create=True)
        assert (caller.running, caller.stopped) == (False, False)
        held = caller.call_soon(lambda: "held")
        await sleep(backend, 0.01)
        assert not held.done()
        async with caller:
            assert (caller.running, caller.stopped) == (True, False)
            assert await held == "held"
            with pytest.raises(RuntimeError, match="Caller<MainThread> is running"):
                await caller.__aenter__()
        return caller

    caller = run(backend, main)
    assert (caller.running, caller.stopped) == (False, True)
    with pytest.raises(RuntimeError, match="Caller<MainThread> does not exist"):
        Caller()


@both
def test_a_stopped_caller_takes_no_call_and_says_so(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend, name="gone")
    caller.stop()
    assert caller.stopped
    for use in (caller.call_soon, caller.call_direct, caller.queue_call):
        with pytest.raises(anyio.ClosedResourceError, match="Caller<gone> has stopped"):
            use(print)
    with pytest.raises(anyio.ClosedResourceError, match="Caller<gone> has stopped"):
        caller.call_later(1, print)
    with pytest.raises(anyio.ClosedResourceError, match="Caller<gone> has stopped"):
        caller.to_thread(print)
    with pytest.raises(anyio.ClosedResourceError, match="Caller<gone> has stopped"):
        caller.get(name="child")


def test_what_cannot_be_called_is_a_type_error() -> None:
    async def main(caller: Caller) -> None:
        nothing: Any = 3
        with pytest.raises(TypeError, match="Caller<MainThread> cannot call 3"):
            caller.call_soon(nothing)

    run_with_caller("asyncio", main)


@both
def test_a_direct_call_runs_in_the_callers_thread_and_its_error_is_logged(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    names: list[str] = []

    def note(*, last: bool) -> None:
        names.append(threading.current_thread().name)
        if last:
            raise ZeroDivisionError("direct")

    caller = Caller.start_new(backend=backend, name="there")
    with caplog.at_level(logging.ERROR):
        caller.call_direct(note, last=False)
        caller.call_direct(note, last=True)
        caller.call_soon(lambda: None).wait_sync(timeout=DEADLINE_S)
    assert names == ["there", "there"]
    assert "caller=there" in caplog.text
    assert "ZeroDivisionError: direct" in caplog.text


@both
def test_an_event_of_a_thread_cell_can_be_set_from_the_main_thread(backend: Backend) -> None:
    """The page's demo: ``button.on_click(lambda _: caller.call_direct(event.set))``."""
    ready: list[tuple[Caller, anyio.Event]] = []

    async def demo() -> str:
        event = anyio.Event()
        ready.append((Caller(), event))
        await event.wait()
        return "Finished"

    async def main(caller: Caller) -> None:
        future = Caller.to_thread(demo)
        await until(backend, lambda: bool(ready), "the cell waits")
        there, event = ready[0]
        there.call_direct(event.set)
        assert await future == "Finished"

    run_with_caller(backend, main)
