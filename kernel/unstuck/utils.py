"""What code in a cell may ask: its job, kernel, tags, metadata, timeout; and tools for threads.

Right in the main thread, in tasks, in Caller threads and in callbacks: the job follows the context.
"""

from __future__ import annotations

import math
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unstuck import jobcontext
from unstuck.typing import Job, Message, MetadataKeys, Tags
from unstuck.waiting import TaskWaiter, new_waiter

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = [
    "LAUNCHED_BY_DEBUGPY",
    "do_not_debug_this_thread",
    "get_execute_request_timeout",
    "get_execution_count",
    "get_job",
    "get_kernel",
    "get_metadata",
    "get_parent",
    "get_tags",
    "mark_thread_pydev_do_not_trace",
    "setattr_nested",
    "wait_thread_event",
]

LAUNCHED_BY_DEBUGPY = "debugpy" in sys.modules


def get_kernel() -> Any:  # noqa: ANN401  (the facade lives in the worker)
    """Give the kernel that this code runs in.

    Raises:
        RuntimeError: it runs in none.
    """
    kernel = jobcontext.get_kernel()
    if kernel is None:
        raise RuntimeError("no unstuck kernel runs in this process")
    return kernel


def get_job() -> Job | dict[str, Any]:
    """Give the job that this code belongs to; ``{}`` outside of one."""
    context = jobcontext.get_context()
    return {} if context is None else context.as_job()


def get_parent(job: Job | dict[str, Any] | None = None, /) -> Message | None:
    """Give the message of the job, or None."""
    return (job or get_job()).get("msg")


def get_metadata(job: Job | dict[str, Any] | None = None, /) -> Mapping[str, Any]:
    """Give the metadata of the job's message; ``{}`` without one."""
    parent = get_parent(job)
    return {} if parent is None else parent["metadata"]


def get_tags(job: Job | dict[str, Any] | None = None, /) -> list[str]:
    """Give the tags of the job's cell."""
    tags = get_metadata(job).get(MetadataKeys.tags.value, [])
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def get_execute_request_timeout(job: Job | dict[str, Any] | None = None, /) -> float | None:
    """Give the seconds that the cell may take, by metadata, tag, the shell's setting; or None.

    The first one that is a number counts; 0 is no limit.
    """
    candidates = [get_metadata(job).get(MetadataKeys.timeout.value)]
    prefix = Tags.timeout.value
    candidates += [tag.removeprefix(prefix) for tag in get_tags(job) if tag.startswith(prefix)]
    shell = getattr(jobcontext.get_kernel(), "shell", None)
    candidates.append(getattr(shell, "execute_request_timeout", None))
    given = (seconds for seconds in map(_seconds, candidates) if seconds is not None)
    return next(given, None) or None


def _seconds(value: object) -> float | None:
    """Read a number of seconds; None for what is none."""
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def get_execution_count() -> int:
    """Give the number of the cell that this code belongs to; of a silent one, of the last before.

    Outside of all cells it is the number of the next.
    """
    context = jobcontext.get_context()
    if context is not None and context.execution_count is not None:
        return context.execution_count
    return int(getattr(jobcontext.get_kernel(), "execution_count", 0))


def mark_thread_pydev_do_not_trace(
    thread: threading.Thread, name: str = "", *, remove: bool = False
) -> None:
    """Hide a thread from the debugger, or show it again; and name it."""
    vars(thread)["pydev_do_not_trace"] = not remove
    if name:
        thread.name = name


@contextmanager
def do_not_debug_this_thread(name: str = "") -> Generator[None]:
    """Hide the current thread from the debugger, unless the whole process is debugged."""
    thread = threading.current_thread()
    if not LAUNCHED_BY_DEBUGPY:
        mark_thread_pydev_do_not_trace(thread, name)
    try:
        yield
    finally:
        if not LAUNCHED_BY_DEBUGPY:
            mark_thread_pydev_do_not_trace(thread, remove=True)


def setattr_nested(obj: object, name: str, value: object) -> dict[str, Any]:
    """Set an attribute by a dotted name, as ``shell.execute_request_timeout``.

    Text is converted to the type of the value that is there (numbers, true and false), never
    evaluated.

    Returns:
        name and value as they are now; empty if there is no such attribute.
    """
    *path, last = name.split(".")
    for part in path:
        obj = getattr(obj, part, None)
    if obj is None or not hasattr(obj, last):
        return {}
    setattr(obj, last, _convert(value, getattr(obj, last)))
    return {name: getattr(obj, last)}


def _convert(value: object, current: object) -> object:
    if not isinstance(value, str) or isinstance(current, str):
        return value
    words = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(current, bool) and value.lower() in words:
        return words[value.lower()]
    if isinstance(current, int | float) and not isinstance(current, bool):
        return type(current)(value)
    return value


class _EventBell:
    """A place in the queue of a `threading.Event`, for a task instead of a thread."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: TaskWaiter) -> None:
        self._waiter = waiter

    def release(self) -> None:
        """Be notified, as the lock of a waiting thread is."""
        self._waiter.wake()


async def wait_thread_event(event: threading.Event) -> None:
    """Wait in a task until a `threading.Event` is set; no thread is used for that."""
    # An event has no public way to be told of it. Its condition releases the lock of each thread
    # that waits: so it is in CPython 3.11 to 3.14, and the tests would tell.
    condition = vars(event)["_cond"]
    waiters = vars(condition)["_waiters"]
    waiter = new_waiter()
    bell = _EventBell(waiter)
    with condition:
        if event.is_set():
            waiter.wake()
        else:
            waiters.append(bell)
    try:
        await waiter.park(None)
    finally:
        with condition:
            if bell in waiters:
                waiters.remove(bell)
