"""Find a wait that could never end, before it begins.

Threads: any. A waiter first says what it waits for, then looks: of two that close a ring, one sees
it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator

    from unstuck.future import Future

RING_LIMIT = 1000
"""How many futures, each waiting for the next, are looked at."""

_blocked: dict[threading.Thread, Future[Any]] = {}
"""The threads that are blocked until a future is done."""


class DeadlockError(RuntimeError):
    """What is waited for waits, in turn, for the waiter."""


def check_deadlock(
    target: Future[Any],
    waiting: Future[Any] | None = None,
    thread: threading.Thread | None = None,
) -> None:
    """Follow who waits for whom, from ``target`` on.

    Args:
        target: what is to be waited for.
        waiting: the call that is about to await it.
        thread: the thread that is about to be blocked by it.

    Raises:
        DeadlockError: it leads back to the waiter; the message names the Callers on the way.
    """
    seen: list[Future[Any]] = []
    at: Future[Any] | None = target
    while at is not None and not at.done() and len(seen) < RING_LIMIT:
        seen.append(at)
        if at is waiting or (at.is_call and at.thread is thread):
            ring = " -> ".join(f"Caller<{future.thread.name}>" for future in seen)
            raise DeadlockError(f"waiting for oneself is a deadlock: {ring}")
        # The thread of a future that no Caller runs may be blocked: others can still set its
        # result.
        at = at.waits_for or (_blocked.get(at.thread) if at.is_call else None)


@contextmanager
def blocking(thread: threading.Thread, target: Future[Any]) -> Generator[None]:
    """Say, while this is entered, that a thread is blocked until ``target`` is done."""
    before = _blocked.get(thread)
    _blocked[thread] = target
    try:
        check_deadlock(target, thread=thread)
        yield
    finally:
        if before is None:
            del _blocked[thread]
        else:
            _blocked[thread] = before
