"""Displays: ``execute_result`` by the display hook, ``display_data`` and its kin by the publisher.

Threads: any. What is under construction belongs to the running cell, hooks belong to their thread.
"""

# IPython's methods have no types.
# mypy: allow-untyped-calls

from __future__ import annotations

import threading
from collections.abc import Callable
from inspect import currentframe
from opcode import opmap
from typing import TYPE_CHECKING, Any, cast

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from typing_extensions import override

from unstuck.jobcontext import JobContext, get_context
from unstuck_worker.content import encode_bundle
from unstuck_worker.plainvalues import format_plainly
from unstuck_worker.streams import adopt_parent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from unstuck_worker.cell import Cell
    from unstuck_worker.lane import OutputLane
    from unstuck_worker.shell import UnstuckShell

_SHOWS = frozenset(opmap[name] for name in ("PRINT_EXPR", "CALL_INTRINSIC_1") if name in opmap)
"""What shows the value of an expression: in CPython 3.11, and since 3.12."""

Hook = Callable[[dict[str, Any]], dict[str, Any] | None]


class Outlet:
    """Send one displayed message, after the hooks of this thread have seen it."""

    def __init__(self, lane: OutputLane) -> None:
        """Publish on ``lane``."""
        self._lane = lane
        self._local = threading.local()

    @property
    def hooks(self) -> list[Hook]:
        """The hooks of this thread, in the order of their registration."""
        if not hasattr(self._local, "hooks"):
            self._local.hooks = []
        hooks: list[Hook] = self._local.hooks
        return hooks

    def send(
        self,
        msg_type: str,
        content: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        buffers: list[Any] | None = None,
        *,
        is_last_act: bool = False,
    ) -> None:
        """Publish under the running job; ``is_last_act`` as in `OutputLane.publish`.

        Raises:
            TypeError: the content has no JSON form.
        """
        context = get_context()
        hooks = getattr(self._local, "hooks", None)
        if hooks:
            message = _make_message(msg_type, content, context)
            if buffers:
                message["buffers"] = buffers
            changed = _pass_through(hooks, message)
            if changed is None:
                return
            msg_type, content = changed["header"]["msg_type"], changed["content"]
            if changed["parent_header"] != _parent_of(context):
                context = JobContext.under(changed["parent_header"])
        self._lane.publish(
            context,
            msg_type,
            encode_bundle(content),
            metadata=encode_bundle(metadata) if metadata else b"{}",
            buffers=buffers,
            is_last_act=is_last_act,
        )


def _pass_through(hooks: list[Hook], message: dict[str, Any]) -> dict[str, Any] | None:
    """Give what the hooks make of a message; None when one has taken it."""
    passed: dict[str, Any] | None = message
    for hook in list(hooks):
        if passed is None:
            break
        passed = hook(passed)
    return passed


def _parent_of(context: JobContext | None) -> Mapping[str, Any]:
    return context.message["header"] if context else {}


def _make_message(
    msg_type: str, content: dict[str, Any], context: JobContext | None
) -> dict[str, Any]:
    """Give the message as hooks expect it."""
    import uuid  # noqa: PLC0415  (most cells have no hook)

    parent = _parent_of(context)
    header = {
        "msg_id": str(uuid.uuid4()),
        "msg_type": msg_type,
        "session": parent.get("session", ""),
        "username": parent.get("username", ""),
        "version": "5.4",
    }
    return {
        "header": header,
        "msg_id": header["msg_id"],
        "msg_type": msg_type,
        "parent_header": parent,
        "metadata": {},
        "content": content,
    }


class CellDisplayHook(DisplayHook):
    """Publish the value of a cell's last expression."""

    topic = b"execute_result"
    outlet: Outlet

    @property
    def _cell(self) -> Cell | None:
        """The running cell."""
        return cast("UnstuckShell", self.shell).cell

    @property
    def exec_result(self) -> Any:  # noqa: ANN401  (IPython's untyped trait)
        """The result record of the running cell."""
        cell = self._cell
        return cell.result if cell else None

    @exec_result.setter
    def exec_result(self, result: Any) -> None:  # noqa: ANN401
        if cell := self._cell:
            cell.result = result

    @property
    def msg(self) -> dict[str, Any] | None:
        """The content under construction, None outside of a display."""
        cell = self._cell
        return cell.output if cell else None

    @override
    def __call__(self, result: Any = None) -> None:
        """Show a value."""
        cell = self._cell
        if cell is not None:
            ours = currentframe()
            caller = None if ours is None else ours.f_back
            cell.is_at_its_end = cell.shows_last_only and self._is_called_at_end(cell, caller)
        super().__call__(result)

    def _is_called_at_end(self, cell: Cell, caller: FrameType | None) -> bool:
        """Say whether Python itself shows the value of a cell's last line, its last act.

        Code of the user's may call this hook like any function, and then go on.
        """
        if caller is None or cell.outer is not None:
            return False
        code = caller.f_code
        compiler: Any = cast("UnstuckShell", self.shell).compile
        return code is compiler.last_line and code.co_code[caller.f_lasti] in _SHOWS

    @override
    def quiet(self) -> bool:
        """Say whether the cell ends in a semicolon."""
        cell = self._cell
        if cell is None or ";" not in cell.source:
            return False
        return bool(self.semicolon_at_end_of_expression(cell.source))

    @override
    def start_displayhook(self) -> None:
        """Begin an execute_result."""
        if cell := self._cell:
            cell.output = {"execution_count": self.prompt_count, "data": {}, "metadata": {}}

    @override
    def compute_format_data(self, result: object) -> Any:
        """Format the value: the MIME bundle and its metadata."""
        formatter: Any = cast("UnstuckShell", self.shell).display_formatter
        bundle = format_plainly(formatter, result)
        return formatter.format(result) if bundle is None else (bundle, {})

    @override
    def write_output_prompt(self) -> None:
        """Leave the prompt to the frontend."""

    @override
    def write_format_data(
        self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None
    ) -> None:
        """Take in what the formatters made."""
        output = self.msg
        if output is not None:
            output["data"] = format_dict
            output["metadata"] = md_dict or {}

    @override
    def finish_displayhook(self) -> None:
        """Send the execute_result, if there is anything in it."""
        cell = self._cell
        if cell is None:
            return
        output, cell.output = cell.output, None
        if output is not None and output["data"]:
            self.outlet.send("execute_result", output, is_last_act=cell.is_at_its_end)

    def register_hook(self, hook: Hook) -> None:
        """Let ``hook`` see, change or take each execute_result of this thread."""
        self.outlet.hooks.append(hook)

    def unregister_hook(self, hook: Hook) -> bool:
        """Take a hook of this thread out; say whether it was there."""
        return _remove(self.outlet.hooks, hook)

    def set_parent(self, parent: Mapping[str, Any]) -> None:
        """Display under another request from here on, in this context."""
        adopt_parent(parent)


class CellDisplayPublisher(DisplayPublisher):
    """Publish ``display_data``, ``update_display_data`` and ``clear_output``."""

    outlet: Outlet

    @override
    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        source: object = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        buffers: list[Any] | None = None,
        **_options: Any,
    ) -> None:
        """Display ``data``, a dict by MIME type.

        Args:
            data: the MIME bundle.
            metadata: by MIME type.
            source: not used any more.
            transient: what is not stored, as ``display_id``.
            update: replace what was displayed with the same ``display_id``.
            buffers: binary data beside the message.
        """
        self._validate_data(data, metadata)
        content = {"data": data, "metadata": metadata or {}, "transient": transient or {}}
        msg_type = "update_display_data" if update else "display_data"
        self.outlet.send(msg_type, content, buffers=buffers)

    @override
    def clear_output(self, wait: bool = False) -> None:
        """Clear the output of the cell, at once or with the next output."""
        self.outlet.send("clear_output", {"wait": wait})

    def register_hook(self, hook: Hook) -> None:
        """Let ``hook`` see, change or take each display of this thread."""
        self.outlet.hooks.append(hook)

    def unregister_hook(self, hook: Hook) -> bool:
        """Take a hook of this thread out; say whether it was there."""
        return _remove(self.outlet.hooks, hook)

    def set_parent(self, parent: Mapping[str, Any]) -> None:
        """Display under another request from here on, in this context."""
        adopt_parent(parent)


def _remove(hooks: list[Hook], hook: Hook) -> bool:
    if hook not in hooks:
        return False
    hooks.remove(hook)
    return True
