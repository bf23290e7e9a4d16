"""How a task and how a thread wait for one future.

Threads: any. Neither uses a thread beside the one that waits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from unstuck.deadlock import DeadlockError, blocking, check_deadlock
from unstuck.waiting import ThreadWaiter, new_waiter

if TYPE_CHECKING:
    from unstuck.future import Future


async def wait_in_task(
    future: Future[Any], waiting: Future[Any] | None, timeout_s: float | None, *, shield: bool
) -> None:
    """Let the current task wait.

    Args:
        future: what is waited for.
        waiting: the call that the current code belongs to.
        timeout_s: for how long; None for as long as it takes.
        shield: leave the future alone when this ends early.

    Raises:
        TimeoutError: the time was up first.
        DeadlockError: the future waits, in turn, for the call.
    """
    if waiting is not None and not waiting.is_running_here():
        # A task beside the call: the call itself goes on.
        waiting = None
    waiter = new_waiter()
    try:
        if waiting is not None:
            waiting.waits_for = target = (future,)
            # What is refused here has not begun to wait: it cancels nothing.
            check_deadlock(target, waiting)
        future.add_entry(waiter)
        try:
            await waiter.park(timeout_s)
            late = not future.done()
        finally:
            if not future.done():
                future.leave(waiter, shield=shield)
    finally:
        if waiting is not None:
            waiting.waits_for = ()
    if late:
        raise TimeoutError(f"Future<{future.thread.name}> was not done within {timeout_s} s")


def wait_in_thread(future: Future[Any], timeout_s: float | None, *, shield: bool) -> None:
    """Block the current thread; the arguments are those of `wait_in_task`.

    Raises:
        TimeoutError: the time was up first.
        DeadlockError: the future belongs to this thread or the main one, or waits for this one.
    """
    if future.done():
        return
    here = threading.current_thread()
    if future.thread in (here, threading.main_thread()):
        raise DeadlockError(
            f"{future!r} cannot be waited for by blocking {here.name!r}: it belongs to the thread"
            f" {future.thread.name!r}. Use `await future` there."
        )
    waiter = ThreadWaiter()
    with blocking(here, future):
        future.add_entry(waiter)
        try:
            waiter.park_sync(timeout_s)
            late = not future.done()
        finally:
            if not future.done():
                future.leave(waiter, shield=shield)
    if late:
        raise TimeoutError(f"Future<{future.thread.name}> was not done within {timeout_s} s")
