"""Run tests of the Caller on both backends."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio

from unstuck.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from unstuck.future import Future
    from unstuck.typing import Backend

T = TypeVar("T")

BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")
both = pytest.mark.parametrize("backend", BACKENDS)
DEADLINE_S = 30.0


def run(backend: Backend, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end, inside of a deadline."""
    if backend == "trio":

        async def limited() -> T:
            with trio.fail_after(DEADLINE_S):
                return await main()

        return trio.run(limited)
    return asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


def run_with_caller(backend: Backend, main: Callable[[Caller], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function, in a thread that has a Caller, to its end."""

    async def body() -> T:
        async with Caller(create=True) as caller:
            return await main(caller)
        raise AssertionError("the Caller swallowed the body's end")

    return run(backend, body)


def where() -> str:
    """Name the current thread."""
    return threading.current_thread().name


async def sleep(backend: str, seconds: float) -> None:
    """Sleep in either backend."""
    await (trio.sleep(seconds) if backend == "trio" else asyncio.sleep(seconds))


def wait_until(fact: Callable[[], bool], what: str) -> None:
    """Block until something is so."""
    until = time.monotonic() + DEADLINE_S
    while not fact():
        assert time.monotonic() < until, f"not so in {DEADLINE_S} s: {what}"
        time.sleep(0.001)


async def until(backend: str, fact: Callable[[], bool], what: str) -> None:
    """Wait until something is so, and let others run."""
    end = time.monotonic() + DEADLINE_S
    while not fact():
        assert time.monotonic() < end, f"not so in {DEADLINE_S} s: {what}"
        await sleep(backend, 0.001)


def awaits(caller: Caller, future: Future[Any]) -> bool:
    """Say whether a call has begun and awaits, or waits for its time."""
    host = caller.scheduler.host
    return host is not None and future in host.active and not host.unstarted
