"""Requests that the broker answers by itself, whatever the worker does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from unstuck.protocol import CloseSubshell, OpenSubshell
from unstuck.runmode import get_run_mode
from unstuck.typing import AnyMsgType, BrokerMsgType, MsgType, SocketID
from unstuck_broker import replies, report
from unstuck_broker.actions import Lane, MeasureUsage, SendToWorker, TakeStack

if TYPE_CHECKING:
    from unstuck_broker.core import Core
    from unstuck_broker.wire import Request

_CONTROL_ONLY = frozenset(BrokerMsgType) - {
    BrokerMsgType.connect_request,
    BrokerMsgType.usage_request,
}


class _Options(Struct):
    """Every field that a served request may have, with the type that the specification gives it."""

    target_name: str | None = None
    restart: bool = False
    subshell_id: str = ""
    msg_id: str | None = None


_options = msgspec.json.Decoder(_Options)


class Served:
    """Answers all that needs no worker: kernel_info, comm_info, interrupt, shutdown, state ..."""

    def __init__(self, core: Core) -> None:
        """Serve for ``core``."""
        self._core = core
        self._waiting: dict[int, Request] = {}
        """Requests whose answer is being measured, by the number of the order."""
        self._last_order = 0

    @property
    def waiting(self) -> int:
        """Count the requests whose answer is being measured."""
        return len(self._waiting)

    def serve(self, kind: AnyMsgType, request: Request, now: float) -> None:
        """Answer a request with busy, reply and idle; a measured answer follows in a later turn."""
        core, out = self._core, self._core.out
        try:
            if request.channel is not SocketID.control:  # Everything is allowed there.
                get_run_mode(kind, concurrency_mode=core.concurrency_mode)
                if kind in _CONTROL_ONLY:
                    raise ValueError(f"{kind} is not allowed on shell: send it on control")
            options = _options.decode(request.content_json)
        except (ValueError, msgspec.MsgspecError) as error:
            out.refuse(request, type(error).__name__, str(error))
            return
        match kind:
            case MsgType.kernel_info_request:
                out.answer(request, replies.kernel_info(core.banner))
            case MsgType.comm_info_request:
                comms = core.comms.info(options.target_name)
                out.answer(request, replies.encode({"status": "ok", "comms": comms}))
            case MsgType.interrupt_request:
                core.interrupts.interrupt(options.msg_id or None, now)
                out.answer(request, replies.OK)
            case MsgType.shutdown_request if options.restart and core.config.restart_in_place:
                core.recovery.restart_for(request)
            case MsgType.shutdown_request:
                core.recovery.shutdown(restart=options.restart, request=request)
            case MsgType.debug_request:
                evalue = "this kernel has no debugger"
                out.answer(request, replies.error("NotImplementedError", evalue, [evalue]))
            case BrokerMsgType.restart_request:
                core.recovery.restart(request)
            case BrokerMsgType.state_request:
                out.answer(request, replies.encode(report.state(core, now)))
            case BrokerMsgType.connect_request:
                out.answer(request, replies.encode({"status": "ok", **core.facts.ports}))
            case BrokerMsgType.usage_request | BrokerMsgType.stack_request:
                self._measure(kind, request)
            case _:
                self._serve_subshell(kind, request, options.subshell_id)

    def _serve_subshell(self, kind: AnyMsgType, request: Request, subshell: str) -> None:
        """Create, delete or list subshells (Jupyter enhancement proposal 91)."""
        core, out = self._core, self._core.out
        content: dict[str, Any] = {"status": "ok"}
        if kind is BrokerMsgType.create_subshell_request:
            content["subshell_id"] = created = core.subshells.create(core.facts.session)
            core.backlog.open_queue(created)
            if core.life.takes_jobs:  # A later worker opens it with its first job.
                out.order(SendToWorker(Lane.thread, OpenSubshell(created)))
        elif kind is BrokerMsgType.list_subshell_request:
            content["subshell_id"] = core.subshells.ids()
        elif core.subshells.delete(subshell):
            core.waiting.abort(core.backlog.close_queue(subshell))
            if core.life.takes_jobs:
                out.order(SendToWorker(Lane.thread, CloseSubshell(subshell)))
        else:
            evalue = replies.unknown_subshell(subshell)
            out.answer(request, replies.error("UnknownSubshellError", evalue, [evalue]))
            return
        out.answer(request, replies.encode(content))

    def _measure(self, kind: AnyMsgType, request: Request) -> None:
        """Order what cannot be answered within a turn."""
        out = self._core.out
        self._last_order += 1
        self._waiting[self._last_order] = request
        out.status(replies.BUSY, request.header_json)
        if kind is BrokerMsgType.usage_request:
            out.order(MeasureUsage(self._last_order))
        else:
            out.order(TakeStack(self._last_order))

    def measured(self, number: int, content: bytes) -> None:
        """Answer the request behind an order."""
        request = self._waiting.pop(number, None)
        if request is not None:
            out = self._core.out
            out.reply(request, content)
            out.status(replies.IDLE, request.header_json)

    def stack_taken(self, stack: str, numbers: tuple[int, ...]) -> None:
        """Answer each stack_request that these stacks are for."""
        content = replies.encode({"status": "ok", "stack": stack})
        for number in numbers:
            self.measured(number, content)

    def abort_waiting(self) -> None:
        """Answer what is being measured when the kernel ends."""
        for number in list(self._waiting):
            self.measured(number, replies.ABORTED)
