"""Make a promoted copy a whole worker again: everything that a fork does not take along.

Threads: the main thread, which is the only one at first.
"""

from __future__ import annotations

import asyncio
import gc
import random
import selectors
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from unstuck_worker.snapshots import executors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_kept: list[object] = []
"""What must never be closed or freed: its library would crash, or end what is not its own."""


def revive_loop(loop: Any) -> None:  # noqa: ANN401  (private attributes)
    """Give the event loop a selector and a self-pipe of its own, and let it run here."""
    old = loop._selector  # noqa: SLF001
    own = loop._ssock.fileno()  # noqa: SLF001
    wakes = signal.set_wakeup_fd(-1)
    wakes_loop = wakes == loop._csock.fileno()  # noqa: SLF001
    selector = selectors.DefaultSelector()
    for key in list(old.get_map().values()):
        if key.fd != own:
            with suppress(OSError, ValueError, KeyError):
                selector.register(key.fileobj, key.events, key.data)
    old.close()
    loop._selector = selector  # noqa: SLF001
    loop._ssock.close()  # noqa: SLF001
    loop._csock.close()  # noqa: SLF001
    loop._internal_fds -= 1  # noqa: SLF001
    loop._make_self_pipe()  # noqa: SLF001
    if wakes_loop:
        signal.set_wakeup_fd(loop._csock.fileno(), warn_on_full_buffer=False)  # noqa: SLF001
    asyncio._set_running_loop(loop)  # noqa: SLF001


def revive_random(state: Any) -> None:  # noqa: ANN401
    """Let ``random`` go on where it was: the fork has seeded it anew."""
    if state is not None:
        random.setstate(state)


def revive_timers(timers: Mapping[int, tuple[float, float]]) -> None:
    """Set the alarms again; what was left of their time is left."""
    for timer, (left_s, interval_s) in timers.items():
        if left_s:
            signal.setitimer(timer, left_s, interval_s)


def revive_imports() -> None:
    """Forget imports that another thread had begun: nobody would ever end them."""
    frozen: Any = sys.modules["_frozen_importlib"]
    if not frozen._module_locks:  # noqa: SLF001
        return  # Nobody imports: a look at thousands of modules would copy their pages.
    frozen._module_locks.clear()  # noqa: SLF001
    frozen._blocking_on.clear()  # noqa: SLF001
    for name, module in list(sys.modules.items()):
        # Not by getattr: lazy modules load themselves when they are asked for anything.
        spec = getattr(module, "__dict__", {}).get("__spec__")
        if getattr(spec, "_initializing", False):
            del sys.modules[name]


def revive_pools() -> None:
    """Let executors and multiprocessing start threads and processes anew."""
    executors.revive()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._run_after_forkers()  # noqa: SLF001
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children.clear()  # noqa: SLF001
    for tracking in _loaded("multiprocessing.resource_tracker", "backend.resource_tracker"):
        tracker: Any = tracking._resource_tracker  # noqa: SLF001
        tracker._fd = tracker._pid = None  # noqa: SLF001
        tracker._lock = type(tracker._lock)()  # noqa: SLF001
    for reusable in _loaded("reusable_executor"):
        _kept.append(reusable._executor)  # noqa: SLF001
        reusable._executor = None  # noqa: SLF001
    forkserver = sys.modules.get("multiprocessing.forkserver")
    if forkserver is not None:
        server: Any = forkserver._forkserver  # noqa: SLF001
        server._forkserver_address = server._forkserver_alive_fd = None  # noqa: SLF001
        server._forkserver_pid = None  # noqa: SLF001


def _loaded(*names: str) -> Iterable[Any]:
    """Give the modules of these names that are loaded: as they are, in loky, in joblib's loky."""
    for package in ("", "loky.", "joblib.externals.loky."):
        for name in names:
            module = sys.modules.get(f"{package}{name}")
            if module is not None:
                yield module


def find_uncloseable() -> list[Any]:
    """Find what must never be closed in a copy: duckdb's connections join threads then, and crash.

    Only read, so that no page is copied; with many objects it takes a while.
    """
    kind = _duckdb_connection()
    if kind is None:
        return []
    return [value for value in gc.get_referrers(kind) if type(value) is kind]


def keep_open(old: list[Any]) -> None:
    """Let these connections live for ever; new ones close as ever."""
    kind = _duckdb_connection()
    if kind is None or not old:
        return
    _kept.extend(old)
    known = {id(value) for value in old}
    close = kind.close

    def close_new(self: Any) -> None:  # noqa: ANN401
        if id(self) not in known:
            close(self)

    kind.close = close_new
    kind.__exit__ = lambda self, *_: close_new(self)


def _duckdb_connection() -> Any:  # noqa: ANN401
    return getattr(sys.modules.get("duckdb"), "DuckDBPyConnection", None)


def revive_callers() -> None:
    """End the Callers whose threads are gone; wake the main thread's, whose bell may have rung."""
    if "unstuck.caller" not in sys.modules:
        return
    from unstuck.caller import Caller  # noqa: PLC0415  (it was imported)

    Caller.forget_dead_threads()
    main = Caller.find(threading.main_thread())
    if main is not None:
        main.scheduler.wake_again()
