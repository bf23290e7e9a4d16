"""The job of the running code, carried into the threads that it starts.

asyncio tasks and Caller calls copy their context by themselves; threads and executors do not.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from unstuck.jobcontext import JobContext, current_job, get_context

if TYPE_CHECKING:
    from collections.abc import Callable

_ATTRIBUTE = "_unstuck_job"


def carry_job_into_threads() -> None:
    """Let every thread and executor call started from here on belong to the job that started it."""
    start: Callable[[threading.Thread], None] = threading.Thread.start
    bootstrap: Callable[[threading.Thread], None] = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]  # noqa: SLF001
    submit: Callable[..., Any] = ThreadPoolExecutor.submit

    def start_with_job(self: threading.Thread) -> None:
        self.__dict__[_ATTRIBUTE] = get_context()
        start(self)

    def bootstrap_with_job(self: threading.Thread) -> None:
        current_job.set(self.__dict__.pop(_ATTRIBUTE, None))
        bootstrap(self)

    def submit_with_job(
        self: ThreadPoolExecutor,
        fn: Callable[..., Any],
        /,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        context = get_context()
        if context is not None:
            fn = partial(_call_under, context, fn)
        return submit(self, fn, *args, **kwargs)

    threading.Thread.start = start_with_job  # type: ignore[method-assign]
    threading.Thread._bootstrap_inner = bootstrap_with_job  # type: ignore[attr-defined]  # noqa: SLF001
    ThreadPoolExecutor.submit = submit_with_job  # type: ignore[method-assign,assignment]


def _call_under(
    context: JobContext,
    function: Callable[..., Any],
    /,
    *args: Any,  # noqa: ANN401
    **kwargs: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    token = current_job.set(context)
    try:
        return function(*args, **kwargs)
    finally:
        current_job.reset(token)
