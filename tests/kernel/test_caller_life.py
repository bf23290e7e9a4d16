"""Callers begin and end: new threads, names, the pool, protection, stopping, interrupts."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

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
from unstuck.caller import Caller, Future
from unstuck.cancelled import FutureCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unstuck.typing import Backend

both = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield from nothing_left()


def run_python(code: str) -> str:
    """Run code in a new interpreter; give what it printed."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env=env
    ).stdout


def where() -> str:
    return threading.current_thread().name


# New threads and names


@both
def test_a_new_caller_runs_in_a_daemon_thread_of_the_known_name(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)
    assert caller.running
    assert caller.backend == backend
    assert caller.thread.daemon
    assert re.fullmatch(r"Thread-\d+ \(anyio_run_caller\)", caller.thread.name)
    assert repr(caller) == f"Caller<{caller.thread.name}>"


@both
def test_a_new_caller_has_the_backend_of_the_loop_that_starts_it(backend: Backend) -> None:
    async def main() -> None:
        assert Caller.start_new().backend == backend

    run(backend, main)
    assert Caller.start_new().backend == "asyncio"


def test_options_reach_the_event_loop() -> None:
    caller = Caller.start_new(backend="asyncio", backend_options={"debug": True})

    def is_debug() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert caller.call_soon(is_debug).wait_sync(timeout=DEADLINE_S)


def test_wrong_options_are_an_error_of_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match=r"Caller<odd> could not be started"):
        Caller.start_new(name="odd", backend="asyncio", backend_options={"loop_factory": "none"})
    assert "is not callable" in caplog.text


def test_an_unknown_backend_is_an_error() -> None:
    unknown: Any = "curio"
    with pytest.raises(ValueError, match="unknown backend 'curio': it is asyncio or trio"):
        Caller.start_new(backend=unknown)


def test_a_backend_that_is_not_installed_is_an_error_that_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['trio'] = None\n"
        "from unstuck.caller import Caller\n"
        "try: Caller.start_new(backend='trio')\n"
        "except ModuleNotFoundError as error: print(error.name, '|', error)\n"
        "print(Caller.start_new().call_soon(lambda: 'asyncio works').wait_sync(timeout=30))"
    )
    assert run_python(code).splitlines() == [
        "trio | the backend 'trio' is not installed: pip install trio",
        "asyncio works",
    ]


def test_a_name_belongs_to_one_caller() -> None:
    caller = Caller.start_new(name="mine", backend="asyncio")
    with pytest.raises(RuntimeError, match="Caller<mine> exists already"):
        Caller.start_new(name="mine", backend="asyncio")
    caller.stop()
    assert Caller.start_new(name="mine", backend="asyncio") is not caller


@both
def test_an_instance_is_found_by_the_name_of_its_thread(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        assert Caller.get_instance() is caller
        assert Caller.get_instance("MainThread") is caller
        with pytest.raises(RuntimeError, match="Caller<other> does not exist"):
            Caller.get_instance("other")
        other = Caller.get_instance("other", create=True)
        assert other is not caller
        assert Caller.get_instance("other") is other

    run_with_caller(backend, main)


def test_the_main_threads_caller_is_never_started() -> None:
    for ask in (
        lambda: Caller.get_instance("MainThread", create=True),
        lambda: Caller.to_thread_by_name("MainThread", where),
        lambda: Caller.get(name="MainThread"),
    ):
        with pytest.raises(RuntimeError, match="Caller<MainThread> does not exist"):
            ask()


def test_many_threads_that_ask_for_one_name_get_one_caller() -> None:
    gate = threading.Barrier(6)
    found: list[Caller] = []

    def ask() -> None:
        gate.wait(DEADLINE_S)
        found.append(Caller.get_instance("shared", create=True))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(found) == 6
    assert len(set(found)) == 1


@both
def test_get_gives_a_caller_by_name_or_a_new_one(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        named = Caller.get(name="named")
        assert Caller.get(name="named") is named
        assert caller.get(name="named") is named
        assert named.backend == backend
        assert Caller.get() is not Caller.get()
        other: Backend = "trio" if backend == "asyncio" else "asyncio"
        assert Caller.get(name="other", backend=other).backend == other
        with pytest.raises(RuntimeError, match=f"Caller<other> runs {other}, not {backend}"):
            Caller.get(name="other", backend=backend)

    run_with_caller(backend, main)


def test_a_caller_got_from_another_stops_with_it() -> None:
    parent = Caller.start_new(backend="asyncio")
    child = parent.get(name="child")
    stranger = Caller.get(name="stranger")
    parent.stop()
    wait_until(lambda: not child.thread.is_alive(), "the child has stopped")
    assert stranger.running


@both
def test_a_call_can_ask_for_another_backend(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        for wanted in BACKENDS:
            seen = await caller.call_using_backend(wanted, lambda: (where(), Caller().backend))
            own = wanted == backend
            assert seen == ("MainThread" if own else f"MainThread ({wanted})", wanted)

    run_with_caller(backend, main)


# The pool


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


# Stopping


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


# Interrupts


def interrupt(thread: threading.Thread) -> None:
    """Raise KeyboardInterrupt in a thread, as the worker does."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
    )


def spin(begun: threading.Event) -> None:
    begun.set()
    while True:
        sum(range(100))


async def spin_later(begun: threading.Event) -> None:
    await anyio.sleep(0)
    spin(begun)


@pytest.mark.parametrize("function", [spin, spin_later])
@both
def test_an_interrupt_ends_the_call_that_runs_and_no_caller(
    backend: Backend, function: Callable[[threading.Event], object]
) -> None:
    caller = Caller.start_new(backend=backend)
    begun = threading.Event()
    future = caller.call_soon(function, begun)
    assert begun.wait(DEADLINE_S)
    executing = future.executing
    assert executing
    assert future.ident == caller.thread.ident
    interrupt(future.thread)
    wait_until(future.done, "the interrupt has ended the call")
    assert isinstance(future.exception(), KeyboardInterrupt)
    assert not future.executing
    assert caller.call_soon(where).wait_sync(timeout=DEADLINE_S) == caller.thread.name


def test_a_call_that_awaits_does_not_execute() -> None:
    caller = Caller.start_new(backend="asyncio")
    begun = threading.Event()

    async def wait_long() -> None:
        begun.set()
        await asyncio.sleep(DEADLINE_S)

    future = caller.call_soon(wait_long)
    assert begun.wait(DEADLINE_S)
    wait_until(lambda: not future.executing, "it awaits")
    assert not future.done()
    future.cancel()
    wait_until(future.done, "it has ended")


def test_an_interrupt_of_an_idle_thread_does_it_no_harm() -> None:
    caller = Caller.start_new(backend="asyncio")
    for _ in range(5):
        interrupt(caller.thread)
        future = caller.call_soon(where)
        wait_until(future.done, "the call has ended, or was interrupted")
        if future.exception() is None:
            assert future.result() == caller.thread.name
        else:
            assert isinstance(future.exception(), KeyboardInterrupt)
    assert caller.running


# The start path


def test_importing_the_caller_imports_no_event_loop() -> None:
    code = (
        "import sys; import unstuck.caller, unstuck.utils; "
        "print([m for m in ('asyncio', 'anyio', 'trio', 'zmq', 'IPython') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"
