"""Find a wait that could never end, before it begins.

Threads: any. A waiter first says what it waits for, then looks: of two that close a ring, one sees
it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Generator, Iterator

    from unstuck.future import Future

RING_LIMIT = 1000
"""How many futures, each waiting for the next, are looked at."""

_blocked: dict[threading.Thread, Future[Any]] = {}
"""The threads that are blocked until a future is done."""


class DeadlockError(RuntimeError):
    """What is waited for waits, in turn, for the waiter."""


def check_deadlock(
    targets: Collection[Future[Any]],
    waiting: Future[Any] | None = None,
    thread: threading.Thread | None = None,
) -> None:
    """Follow who waits for whom, from the targets on.

    Args:
        targets: what is to be waited for; any of them would end the wait.
        waiting: the call that is about to await them.
        thread: the thread that is about to be blocked by them.

    Raises:
        DeadlockError: all ways lead back to the waiter; the message names the Callers on one of
        them.
    """
    seen: set[Future[Any]] = set()
    way: list[Future[Any]] = []
    ring: list[Future[Any]] = []
    # One iterator for each future on the way, so that a wait for thousands costs a look at one.
    branches: list[Iterator[Future[Any]]] = [iter(targets)]
    while branches:
        at = next(branches[-1], None)
        if at is None:
            branches.pop()
            if way:
                way.pop()
            continue
        if at in seen:
            continue
        if at is waiting or (at.is_call and at.thread is thread and not at.done()):
            ring = ring or [*way, at]
            continue
        then = () if at.done() or len(seen) >= RING_LIMIT else _waited_by(at)
        if not then:
            # It is done, or runs, or nobody knows: this one can still end the wait.
            return
        seen.add(at)
        way.append(at)
        branches.append(iter(then))
    if ring:
        named = " -> ".join(f"Caller<{future.thread.name}>" for future in ring)
        raise DeadlockError(f"waiting for oneself is a deadlock: {named}")


def _waited_by(future: Future[Any]) -> tuple[Future[Any], ...]:
    """Give what would let a future's call go on."""
    if future.waits_for:
        return tuple(future.waits_for)
    # The thread of a future that no Caller runs may be blocked: others can still set its result.
    blocker = _blocked.get(future.thread) if future.is_call else None
    return () if blocker is None else (blocker,)


@contextmanager
def awaiting(waiting: Future[Any] | None, targets: Collection[Future[Any]]) -> Generator[None]:
    """Say, while this is entered, that a call waits until one of the targets is done.

    Args:
        waiting: the call that the current code belongs to; None for code that belongs to none.
        targets: what it waits for.

    Raises:
        DeadlockError: they wait, in turn, for the call.
    """
    if waiting is None or not waiting.is_running_here():
        yield
        return
    waiting.waits_for = targets
    try:
        check_deadlock(targets, waiting)
        yield
    finally:
        waiting.waits_for = ()


@contextmanager
def blocking(thread: threading.Thread, target: Future[Any]) -> Generator[None]:
    """Say, while this is entered, that a thread is blocked until ``target`` is done."""
    before = _blocked.get(thread)
    _blocked[thread] = target
    try:
        check_deadlock((target,), thread=thread)
        yield
    finally:
        if before is None:
            del _blocked[thread]
        else:
            _blocked[thread] = before
