"""Executors: which of their threads are idle, and how they work again where those are gone.

Threads: `watch` and `revive` in the main thread.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor, thread
from functools import wraps
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_known: weakref.WeakSet[ThreadPoolExecutor] = weakref.WeakSet()
_OWN_READERS = 2
"""Of a Caller's loop: its self-pipe, and the bell that wakes the Caller."""
_STATE = "_threads", "_idle_semaphore", "_work_queue"


def watch() -> None:
    """Know all executors that are made from here on."""
    make: Any = ThreadPoolExecutor.__init__

    @wraps(make)
    def make_known(self: ThreadPoolExecutor, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        make(self, *arguments, **options)
        _known.add(self)

    ThreadPoolExecutor.__init__ = make_known  # type: ignore[method-assign]


def idle_threads() -> set[threading.Thread]:
    """Give the threads that wait for work of an executor or Caller; none of them is missed."""
    idle: set[threading.Thread] = set()
    for executor in list(_known):
        threads, waiting, work = (getattr(executor, name) for name in _STATE)
        # The semaphore counts threads that are idle; one may have found its work this moment.
        if work.empty() and waiting._value >= len(threads):  # noqa: SLF001
            idle |= threads
    for worker in _anyio_workers("_threadpool_idle_workers"):
        idle.add(worker)
    callers = sys.modules.get("unstuck.registry")
    if callers is not None:
        idle.update(caller.thread for caller in callers.registry.all() if _is_idle(caller))
    return idle


def _is_idle(caller: Any) -> bool:  # noqa: ANN401
    scheduler = caller.scheduler
    if not caller.lifespan.owns_thread or scheduler.outstanding:
        return False
    return scheduler.host is None or not _does_more(scheduler.host)


def _does_more(host: Any) -> bool:  # noqa: ANN401
    """Say whether a cell has left something in a Caller's loop: tasks, timers, a server."""
    loop: Any = host.loop
    if host.backend != "asyncio":
        return False  # Trio's tasks end with the call that has started them.
    if len(asyncio.all_tasks(loop)) > 1:  # One is the Caller's life.
        return True
    if not hasattr(loop, "_selector"):
        return False  # uvloop's does not say.
    timers = (timer for timer in list(loop._scheduled) if not timer.cancelled())  # noqa: SLF001
    if any(getattr(timer._callback, "__self__", None) is not host for timer in timers):  # noqa: SLF001
        return True
    return len(loop._selector.get_map()) > _OWN_READERS  # noqa: SLF001


def _anyio_variables() -> Iterable[dict[Any, Any]]:
    lowlevel = sys.modules.get("anyio.lowlevel")
    return list(lowlevel._run_vars.values()) if lowlevel is not None else []  # noqa: SLF001


def _anyio_workers(name: str) -> Iterable[Any]:
    for variables in _anyio_variables():
        for variable, value in list(variables.items()):
            if variable._name == name:  # noqa: SLF001
                yield from value


def revive() -> None:
    """Let executors start threads anew; what they had not begun to run is cancelled."""
    for executor in list(_known):
        _revive(executor)
    thread._threads_queues.clear()  # type: ignore[attr-defined]  # noqa: SLF001
    for variables in _anyio_variables():
        for variable, value in variables.items():
            if variable._name in ("_threadpool_idle_workers", "_threadpool_workers"):  # noqa: SLF001
                value.clear()


def _revive(executor: ThreadPoolExecutor) -> None:
    state: Any = executor
    waiting = state._work_queue  # noqa: SLF001
    state._threads = set()  # noqa: SLF001
    state._idle_semaphore = threading.Semaphore(0)  # noqa: SLF001
    state._shutdown_lock = threading.Lock()  # noqa: SLF001
    state._work_queue = SimpleQueue()  # noqa: SLF001
    while True:
        try:
            item = waiting.get_nowait()
        except Empty:
            return
        if item is not None:
            item.future.cancel()
