"""Start a thread that runs an event loop with a Caller in it, and nothing else."""

from __future__ import annotations

import contextvars
import importlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from unstuck.caller import Caller
    from unstuck.typing import Backend

C = TypeVar("C", bound="Caller")

Serve = Callable[[], Coroutine[Any, Any, None]]
Recover = Callable[[BaseException], None]

log = logging.getLogger("unstuck")


def check_backend(backend: str) -> Backend:
    """Give the name of a backend that is there.

    Raises:
        ValueError: there is none of this name.
        ModuleNotFoundError: it is not installed.
    """
    if backend == "asyncio":
        return "asyncio"
    if backend == "trio":
        try:
            importlib.import_module("trio")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the backend 'trio' is not installed: pip install trio", name="trio"
            ) from error
        return "trio"
    raise ValueError(f"unknown backend {backend!r}: it is asyncio or trio")


class ThreadStart(Generic[C]):
    """The start of one thread; it ends with a Caller that runs, or with an error."""

    def __init__(
        self,
        make: Callable[[], C],
        backend: Backend,
        name: str | None,
        options: dict[str, Any] | None,
    ) -> None:
        """Start a daemon thread in which ``make`` makes the Caller, in an event loop of its own."""
        self._make = make
        self._caller: C | None = None
        self._error: BaseException | None = None
        self._ready = threading.Event()

        # Users know the threads of the pool by this name: Thread-4 (anyio_run_caller).
        def anyio_run_caller() -> None:
            # Without the context of the cell that happened to start it: each call brings its own.
            contextvars.Context().run(self._run, backend, options)

        self._thread = threading.Thread(target=anyio_run_caller, name=name, daemon=True)
        self._thread.start()

    def wait(self, deadline_s: float) -> C:
        """Wait for the Caller.

        Raises:
            RuntimeError: there is none in time, or its event loop could not be started.
        """
        if not self._ready.wait(deadline_s) or self._caller is None:
            raise RuntimeError(f"Caller<{self._thread.name}> could not be started") from self._error
        return self._caller

    def _run(self, backend: Backend, options: dict[str, Any] | None) -> None:
        try:
            run_loop(self._serve, backend, options, self._recover)
        except BaseException as error:
            self._error = error
            log.exception("thread=%s event loop failed", self._thread.name)
        finally:
            self._ready.set()
            if self._caller is not None:
                self._caller.lifespan.end()

    def _recover(self, error: BaseException) -> None:
        log.warning("thread=%s error=%r passed the event loop", self._thread.name, error)
        if self._caller is not None:
            self._caller.scheduler.wake_again()

    async def _serve(self) -> None:
        async with self._make() as caller:
            caller.lifespan.owns_thread = True
            self._caller = caller
            self._ready.set()
            if caller.backend == "trio":
                import trio  # noqa: PLC0415  (not on the start path)

                await trio.sleep_forever()
            else:
                import asyncio  # noqa: PLC0415  (not on the start path)

                await asyncio.get_running_loop().create_future()


def run_loop(
    serve: Serve, backend: Backend, options: dict[str, Any] | None, recover: Recover
) -> None:
    """Run ``serve`` in a new event loop of this kind, to its end.

    Args:
        serve: a coroutine function.
        backend: the kind.
        options: for `anyio.run`.
        recover: hears of an interrupt that passed an asyncio loop, which then runs on.
    """
    if options:
        import anyio  # noqa: PLC0415  (not on the start path)

        anyio.run(serve, backend=backend, backend_options=options)
    elif backend == "trio":
        import trio  # noqa: PLC0415  (not on the start path)

        trio.run(serve)
    else:
        _run_asyncio(serve, recover)


def _run_asyncio(serve: Serve, recover: Recover) -> None:
    import asyncio  # noqa: PLC0415  (not on the start path)

    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        main = loop.create_task(serve())
        while not main.done():
            try:
                loop.run_until_complete(main)
            except BaseException as error:
                # An interrupt that came while the loop was idle, or went through it, must not end
                # it.
                if main.done():
                    raise
                recover(error)
        _cancel_tasks(loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _cancel_tasks(loop: AbstractEventLoop) -> None:
    import asyncio  # noqa: PLC0415  (not on the start path)

    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1))
    loop.run_until_complete(loop.shutdown_asyncgens())
