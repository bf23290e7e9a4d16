"""Comms: the channels between objects in the kernel (widgets) and their views in frontends.

Threads: a comm may be opened, used and closed in any thread. A frontend's message is handled in
the thread that calls the manager; a synchronous handler has ended when the call returns, handlers
that are coroutines run one after the other for each comm.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import comm
from comm import base_comm
from IPython.core.getipython import get_ipython
from typing_extensions import override

from unstuck.jobcontext import current_job, get_kernel
from unstuck_worker.tracebacks import hide_our_frames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
    from types import TracebackType


log = logging.getLogger("unstuck.comms")


class Publish(Protocol):
    """Send one message on iopub, under the running job unless another parent is given."""

    def __call__(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        metadata: dict[str, Any] | None = None,
        topic: bytes = b"",
        buffers: Sequence[Any] = (),
        parent: Mapping[str, Any] | None = None,
    ) -> None: ...


class Handled:
    """What the manager gives for a message that needs no waiting; awaiting it is free."""

    def __await__(self) -> Generator[Any, None, None]:
        """Finish at once."""
        yield from ()


HANDLED = Handled()


class Comm(base_comm.BaseComm):
    """One comm; its messages go through the worker's output lane."""

    manager: ClassVar[CommManager | None] = None

    def __init__(
        self,
        target_name: str = "comm",
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[Any] | None = None,
        **options: Any,  # noqa: ANN401  (the base class's)
    ) -> None:
        """Open a comm, or take over the one that a frontend opened (``primary=False``)."""
        # ipykernel's Comm takes these two, and libraries give them.
        for name in ("kernel", "show_warning"):
            options.pop(name, None)
        self.last: asyncio.Task[None] | None = None
        """The newest asynchronous handler of this comm."""
        super().__init__(target_name, data, metadata, buffers, **options)  # type: ignore[arg-type]

    @property
    def kernel(self) -> Any:  # noqa: ANN401
        """The kernel facade; libraries take None for "no kernel is there"."""
        return get_kernel()

    @override
    def publish_msg(
        self,
        msg_type: str,
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[Any] | None = None,
        **keys: Any,
    ) -> None:
        """Send a message of this comm; without a kernel nothing is sent, as with ipykernel."""
        if self.manager is not None:
            _note_capture(data)
            self.manager.publish(
                msg_type,
                {"data": {} if data is None else data, "comm_id": self.comm_id, **keys},
                metadata=metadata or {},
                topic=self.topic,
                buffers=buffers or (),
            )

    @override
    def handle_msg(self, msg: dict[str, Any]) -> Awaitable[object] | None:  # type: ignore[override]
        """Call the handler of messages; give what it returned if that is to be awaited."""
        return _call_between_events(self._msg_callback, msg)

    @override
    def handle_close(self, msg: dict[str, Any]) -> Awaitable[object] | None:  # type: ignore[override]
        """Call the handler of the close; give what it returned if that is to be awaited."""
        return _awaitable(self._close_callback(msg)) if self._close_callback else None

    def forget(self) -> None:
        """Take the comm for closed without telling the frontend."""
        self._closed = True


def _note_capture(data: object) -> None:
    """Tell the cell that a frontend captures its outputs (an ``Output`` widget's ``msg_id``).

    The data of libraries with views of their own (bokeh) may be a text, whatever the types say.
    """
    state = data.get("state") if isinstance(data, dict) else None
    job = current_job.get()
    if job is not None and job.cell is not None and isinstance(state, dict) and "msg_id" in state:
        job.cell.is_captured = True


def _call_between_events(
    callback: Callable[[dict[str, Any]], object] | None, message: dict[str, Any]
) -> Awaitable[object] | None:
    """Call a handler; matplotlib draws a widget's figures in ``post_execute``."""
    if callback is None:
        return None
    shell = get_ipython()
    if shell is None:
        return _awaitable(callback(message))
    shell.events.trigger("pre_execute")
    try:
        return _awaitable(callback(message))
    finally:
        shell.events.trigger("post_execute")


def _hand(
    handler: Callable[[dict[str, Any]], object], message: dict[str, Any]
) -> Awaitable[object] | None:
    return _awaitable(handler(message))


def _awaitable(value: object) -> Awaitable[object] | None:
    return value if inspect.isawaitable(value) else None


class CommManager(base_comm.CommManager):
    """All comms and targets of this kernel; ``comms`` and ``targets`` are plain mappings."""

    def __init__(self, publish: Publish) -> None:
        """Send through ``publish``."""
        super().__init__()
        self.publish = publish

    @override
    def register_comm(self, comm: base_comm.BaseComm) -> str:
        """Take in a comm; one that had its id before must not close it at its own end."""
        before = self.comms.get(comm.comm_id)
        if isinstance(before, Comm) and before is not comm:
            before.forget()
        return super().register_comm(comm)

    @override
    def unregister_comm(self, comm: base_comm.BaseComm) -> None:
        """Take out a comm; another that has its id by now stays."""
        if self.comms.get(comm.comm_id) is comm:
            del self.comms[comm.comm_id]

    @override
    def comm_open(self, *request: Any) -> Awaitable[None]:  # type: ignore[override]
        """Hand a comm that a frontend opens to its target.

        ``request`` is ``(message,)``, or ``(stream, ident, message)`` as with other kernels.
        """
        message: dict[str, Any] = request[-1]
        comm_id, target_name = _text(message, "comm_id"), _text(message, "target_name")
        if comm_id is None or target_name is None:
            return HANDLED
        opened = Comm(comm_id=comm_id, primary=False, target_name=target_name)
        self.register_comm(opened)
        target = self.targets.get(target_name)
        if target is None:
            _tell(f"No such comm target registered: {target_name}")
            opened.close()
            return HANDLED
        return self._run(
            opened,
            lambda: _awaitable(target(opened, message)),
            f"opening comm with target: {target_name}",
            opened.close,
        )

    @override
    def comm_msg(self, *request: Any) -> Awaitable[None]:  # type: ignore[override]
        """Hand a message to the handler of its comm."""
        message: dict[str, Any] = request[-1]
        comm_id = _text(message, "comm_id")
        found = None if comm_id is None else self.get_comm(comm_id)
        if found is None:
            return HANDLED
        return self._run(
            found, partial(_hand, found.handle_msg, message), f"in comm_msg for {comm_id}"
        )

    @override
    def comm_close(self, *request: Any) -> Awaitable[None]:  # type: ignore[override]
        """Take out a comm that its frontend closed, and tell its handler."""
        message: dict[str, Any] = request[-1]
        comm_id = _text(message, "comm_id")
        found = None if comm_id is None else self.comms.pop(comm_id, None)
        if found is None:
            log.debug("event=comm_close comm=%s unknown", comm_id)
            return HANDLED
        if isinstance(found, Comm):
            found.forget()
        return self._run(
            found, partial(_hand, found.handle_close, message), f"in comm_close for {comm_id}"
        )

    @override
    def get_comm(self, comm_id: str) -> base_comm.BaseComm | None:
        """Give the comm of that id, or None, with a line in the log."""
        found = self.comms.get(comm_id)
        if found is None:
            log.warning("No such comm: %s", comm_id)
        return found

    def _run(
        self,
        owner: base_comm.BaseComm,
        call: Callable[[], Awaitable[object] | None],
        doing: str,
        on_error: Callable[[], None] | None = None,
    ) -> Awaitable[None]:
        """Call a handler, after the asynchronous handlers of its comm before it."""
        before = owner.last if isinstance(owner, Comm) else None
        if before is not None and not before.done() and before.get_loop() is _running_loop():
            return _start(owner, _finish(before, call, doing, on_error))
        pending: Awaitable[object] | None = None
        with _Shown(doing, on_error):
            pending = call()
        if pending is None:
            return HANDLED
        started = _start(owner, _finish(None, lambda: pending, doing, on_error))
        if started is HANDLED and inspect.iscoroutine(pending):
            pending.close()
        return started


def _text(message: dict[str, Any], name: str) -> str | None:
    """Read a text of a message's content; without it the message is dropped, and that is told."""
    value = message["content"].get(name)
    if isinstance(value, str):
        return value
    _tell(f"A comm message was dropped: its {name} is {value!r}, not a text.")
    return None


async def _finish(
    before: asyncio.Task[None] | None,
    call: Callable[[], Awaitable[object] | None],
    doing: str,
    on_error: Callable[[], None] | None,
) -> None:
    """Wait for the handler before, call this one and wait for what it gives."""
    if before is not None:
        await asyncio.wait([before])
    with _Shown(doing, on_error):
        pending = call()
        if pending is not None:
            await pending


def _start(owner: base_comm.BaseComm, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
    """Run an asynchronous handler in the event loop of this thread; `HANDLED` if there is none."""
    loop = _running_loop()
    if loop is not None:
        task = loop.create_task(work)
        if isinstance(owner, Comm):
            owner.last = task
        return task
    from unstuck.caller import Caller  # noqa: PLC0415  (only a thread with a trio loop needs it here)

    try:
        return Caller().call_soon(lambda: work)
    except RuntimeError:
        work.close()
        _tell("A comm handler is a coroutine, but its thread has no event loop.")
        return HANDLED


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Shown:
    """Show on stderr, under the handled message, what a user's handler raises; and go on."""

    def __init__(self, doing: str, on_error: Callable[[], None] | None) -> None:
        self._doing = doing
        self._on_error = on_error

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Swallow errors and interrupts, not cancellation."""
        if not isinstance(error, Exception | KeyboardInterrupt):
            return False
        trace = hide_our_frames(error, trace)
        while trace is not None and trace.tb_frame.f_code.co_filename == base_comm.__file__:
            trace = trace.tb_next
        lines = traceback.format_exception(kind, error, trace)
        _tell(f"Exception {self._doing}\n{''.join(lines)}".rstrip())
        if self._on_error is not None:
            self._on_error()
        return True


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def install(publish: Publish) -> CommManager:
    """Make every comm of this process go through ``publish``; give their manager."""
    manager = CommManager(publish)
    Comm.manager = manager
    set_hooks(manager)
    return manager


def set_hooks(manager: CommManager) -> None:
    """Answer the package ``comm``, which all libraries ask, with our comms and their manager."""
    comm.create_comm = Comm
    comm.get_comm_manager = lambda: manager
