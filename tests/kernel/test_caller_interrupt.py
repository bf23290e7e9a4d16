"""Interrupts end a call, never a Caller."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from kernel.callers import DEADLINE_S, both, wait_until, where
from unstuck.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


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
