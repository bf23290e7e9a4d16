"""Calls through a Caller, beside asyncio's own means and async_kernel's Caller, in one run.

Run it by name: ``python -m pytest tests/bench/bench_caller.py -s``. The subjects take turns, so
that whatever else the machine does hits all of them; a figure is the median of the rounds, and a
ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from unstuck.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

pytestmark = pytest.mark.bench

ROUNDS = 61
BURST_ROUNDS = 5
TRIPS = 50
BURST = 10_000

Measure = Callable[[], Coroutine[Any, Any, float]]
"""Run a round; give the seconds that one call took."""


def answer(number: int) -> int:
    """Be called."""
    return number


async def answer_later(number: int) -> int:
    """Be awaited."""
    return number


@contextmanager
def loop_thread() -> Generator[asyncio.AbstractEventLoop]:
    """Run a bare asyncio loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def bare_call(there: asyncio.AbstractEventLoop, number: int) -> asyncio.Future[int]:
    """Call in another thread's loop, with call_soon_threadsafe both ways."""
    here = asyncio.get_running_loop()
    future: asyncio.Future[int] = here.create_future()

    def run() -> None:
        here.call_soon_threadsafe(future.set_result, answer(number))

    there.call_soon_threadsafe(run)
    return future


def trips(call: Callable[[int], Awaitable[Any]]) -> Measure:
    """Make one call after another; give the median time of one."""

    async def measure() -> float:
        times: list[float] = []
        for number in range(TRIPS):
            begin = time.perf_counter()
            assert await call(number) == number
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    return measure


def burst(call: Callable[[int], Awaitable[Any]]) -> Measure:
    """Make all calls, then wait for all; give the time for each."""

    async def measure() -> float:
        begin = time.perf_counter()
        futures = [call(number) for number in range(BURST)]
        for number, future in enumerate(futures):
            assert await future == number
        return (time.perf_counter() - begin) / BURST

    return measure


def rows(
    ours: Caller,
    ref: Any,  # noqa: ANN401  (async_kernel is not typed)
    there: asyncio.AbstractEventLoop,
) -> dict[str, dict[str, Measure]]:
    """List what is measured, and for whom."""
    ours_there, ref_there = ours.get(name="bench"), ref.get(name="bench")
    here = asyncio.get_running_loop()

    def later(number: int) -> Awaitable[int]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer_later(number), there))

    return {
        "call_soon, function": {
            "unstuck": trips(lambda n: ours_there.call_soon(answer, n)),
            "async_kernel": trips(lambda n: ref_there.call_soon(answer, n)),
            "asyncio": trips(lambda n: bare_call(there, n)),
        },
        "call_soon, coroutine function": {
            "unstuck": trips(lambda n: ours_there.call_soon(answer_later, n)),
            "async_kernel": trips(lambda n: ref_there.call_soon(answer_later, n)),
            "asyncio": trips(later),
        },
        "to_thread, function": {
            "unstuck": trips(lambda n: ours.to_thread(answer, n)),
            "async_kernel": trips(lambda n: ref.to_thread(answer, n)),
            "asyncio": trips(lambda n: here.run_in_executor(None, answer, n)),
        },
        "10,000 functions": {
            "unstuck": burst(lambda n: ours_there.call_soon(answer, n)),
            "async_kernel": burst(lambda n: ref_there.call_soon(answer, n)),
            "asyncio": burst(lambda n: bare_call(there, n)),
        },
        "10,000 coroutine functions": {
            "unstuck": burst(lambda n: ours_there.call_soon(answer_later, n)),
            "async_kernel": burst(lambda n: ref_there.call_soon(answer_later, n)),
            "asyncio": burst(later),
        },
        "call_soon in the own loop": {
            "unstuck": trips(lambda n: ours.call_soon(answer, n)),
            "async_kernel": trips(lambda n: ref.call_soon(answer, n)),
            "asyncio": trips(lambda n: here.create_task(answer_later(n))),
        },
    }


def is_burst(row: str) -> bool:
    """Say whether a row is one of the bursts."""
    return row.startswith("10,000")


Times = dict[str, list[float]]
"""Seconds for a call, in each round, by subject."""


async def measure_all() -> dict[str, Times]:
    """Measure each row."""
    reference = pytest.importorskip("async_kernel.caller")
    results: dict[str, Times] = {}
    async with AsyncExitStack() as stack:
        there = stack.enter_context(loop_thread())
        ref = await stack.enter_async_context(reference.Caller("manual"))
        ours = await stack.enter_async_context(Caller(create=True))
        for row, subjects in rows(ours, ref, there).items():
            times: Times = {subject: [] for subject in subjects}
            for turn in range((BURST_ROUNDS if is_burst(row) else ROUNDS) + 1):
                for subject, measure in subjects.items():
                    seconds = await measure()
                    if turn:
                        times[subject].append(seconds)
            results[row] = times
        Caller.stop_all()
    return results


def ratio(times: Times, other: str) -> float:
    """Give our time as a share of another's."""
    pairs = zip(times["unstuck"], times[other], strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)


def table(results: dict[str, Times]) -> str:
    """Show medians and ratios."""
    names = ("unstuck", "async_kernel", "asyncio")
    lines = ["{:32}{:>14}{:>14}{:>14}{:>8}{:>12}".format("", *names, "ratio", "to asyncio")]
    for row, times in results.items():
        medians = "".join(f"{statistics.median(times[n]) * 1e6:11.1f} us" for n in names)
        ratios = f"{ratio(times, 'async_kernel'):8.2f}{ratio(times, 'asyncio'):12.2f}"
        lines.append(f"{row:32}{medians}{ratios}")
    return "\n".join(lines)


def test_a_caller_takes_no_longer_than_the_references() -> None:
    results = asyncio.run(measure_all())
    print(f"\n{table(results)}")
    ratios = {row: ratio(times, "async_kernel") for row, times in results.items()}
    assert {row: value for row, value in ratios.items() if value > 1} == {}
