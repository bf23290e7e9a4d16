"""The shell: IPython's, with cells that run beside each other and outputs that go through the lane.

Threads: `run_cell_async` may run in several threads and tasks at once. What belongs to one cell is
in its `Cell`, found through the job of the running code; the namespace and history are shared.
"""

# IPython's methods have no types.
# mypy: allow-untyped-calls

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from IPython.core import async_helpers, page
from IPython.core.autocall import ZMQExitAutocall
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell, InteractiveShellABC
from IPython.core.usage import default_banner
from traitlets import Any as AnyTrait
from traitlets import CBool, Instance, Type, default
from traitlets.config.loader import Config
from typing_extensions import override

from unstuck.jobcontext import current_job, get_context
from unstuck.protocol import AskExit, Caught, StreamName
from unstuck_worker.cell import Cell
from unstuck_worker.cellhistory import CellHistory
from unstuck_worker.compiler import CellCompiler
from unstuck_worker.content import encode
from unstuck_worker.display import (
    CellDisplayHook,
    CellDisplayPublisher,
    Outlet,
)
from unstuck_worker.execute import text_of
from unstuck_worker.payloads import CellPayloads
from unstuck_worker.plaincode import PlainCode
from unstuck_worker.settings import CellTimeout
from unstuck_worker.streams import adopt_parent
from unstuck_worker.tags import error_message
from unstuck_worker.tracebacks import (
    USER_FAILURES,
    format_plainly,
    hide_our_frames,
    holds_group,
    is_deep,
)
from unstuck_worker.traps import LastingBuiltinTrap, LastingDisplayTrap

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from contextvars import Token
    from types import TracebackType

    from IPython.core.interactiveshell import ExecutionResult

    from unstuck.jobcontext import JobContext
    from unstuck_worker.lane import OutputLane

    Runner = Callable[[Coroutine[Any, Any, ExecutionResult]], ExecutionResult]

ENVIRONMENT = {
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}
"""For child processes: colours, which frontends show, and no pagers, which nobody could operate."""

GUI_LOOPS = (None, "", "inline", "agg", "asyncio", "ipympl", "widget", "notebook", "nbagg")
"""What ``%gui`` takes: no toolkit's loop runs in the worker."""

_RICH_MODES = ("Context", "Verbose")
"""Those of ``%xmode`` that look into each frame."""

_MAGIC_CALLS = {"run_line_magic": "line", "run_cell_magic": "cell"}


_OWN_CALLBACKS = ("IPython.core.displaypub", "unstuck_worker.autosave")
"""Modules of what is called at the end of each cell."""


class UnstuckShell(InteractiveShell):
    """The one shell of the process."""

    displayhook_class = Type(CellDisplayHook)
    display_pub_class = Type(CellDisplayPublisher)
    compiler_class = Type(CellCompiler)
    exiter = Instance(ZMQExitAutocall)
    readline_use = CBool(False)
    autoindent = CBool(False)
    kernel = AnyTrait()
    execute_request_timeout = CellTimeout()
    lane: OutputLane
    keepkernel_on_exit: bool | None = None
    data_pub_class = None

    def __init__(self, lane: OutputLane, **options: Any) -> None:  # noqa: ANN401  (IPython's)
        """Build the shell; its outputs go to ``lane``."""
        self.lane = lane
        self.counter = 1
        self._counter_lock = threading.Lock()
        self._own_cell: Cell | None = None
        super().__init__(**options)
        self._plain_code = PlainCode(self)
        # Libraries ask for this section to tell a notebook from a terminal (tqdm does).
        self.config.setdefault("IPKernelApp", Config())

    @default("exiter")
    def _default_exiter(self) -> ZMQExitAutocall:
        return ZMQExitAutocall(self)

    @default("banner1")
    def _default_banner1(self) -> str:
        return str(default_banner)

    # --- the running cell -------------------------------------------------------------------------

    @property
    def cell(self) -> Cell | None:
        """The cell that the running code belongs to."""
        context = get_context()
        return self._own_cell if context is None else context.cell

    def _set_cell(self, cell: Cell | None) -> None:
        context = get_context()
        if context is None:
            self._own_cell = cell
        else:
            context.cell = cell

    @property
    def execution_count(self) -> int:
        """The number of the next cell, as the running one sees it."""
        cell = self.cell
        return cell.next_count if cell else self.counter

    @execution_count.setter
    def execution_count(self, value: int) -> None:
        cell = self.cell
        if cell is None:
            self.counter = value
        elif not cell.is_counted and value == cell.count + 1:
            # IPython's own step at the start of a cell; `_open_cell` has moved the counter already.
            cell.is_counted = True
        else:
            cell.count = value - 1
            cell.is_counted = True
            self.counter = value

    @override
    async def run_cell_async(
        self,
        raw_cell: str,
        store_history: bool = False,
        silent: bool = False,
        shell_futures: bool = True,
        *,
        transformed_cell: str | None = None,
        preprocessing_exc_tuple: Any = None,
        cell_id: str | None = None,
        cell_meta: dict[str, Any] | None = None,
    ) -> ExecutionResult:
        """Run a cell; the parameters are IPython's."""
        if transformed_cell is None and preprocessing_exc_tuple is None:
            transformed_cell, preprocessing_exc_tuple = self.transform(raw_cell)
        outer = self.cell
        counts = store_history and not silent and bool(raw_cell) and not raw_cell.isspace()
        self._set_cell(self._open_cell(transformed_cell or raw_cell, outer, counts=counts))
        try:
            return await super().run_cell_async(
                raw_cell,
                store_history,
                silent,
                shell_futures,
                transformed_cell=transformed_cell or raw_cell,
                preprocessing_exc_tuple=preprocessing_exc_tuple,
                cell_id=cell_id,
                cell_meta=cell_meta,
            )
        finally:
            if outer is not None or get_context() is None:
                self._set_cell(outer)

    def _open_cell(self, source: str, outer: Cell | None, *, counts: bool) -> Cell:
        """Number a cell; no two cells that run beside each other get the same."""
        with self._counter_lock:
            is_last_only = self.ast_node_interactivity == "last_expr"
            cell = Cell(self.counter, source, outer, shows_last_only=is_last_only)
            if counts:
                self.counter += 1
        context = get_context()
        if context is not None and outer is None:
            context.execution_count = cell.count if counts else cell.count - 1
        return cell

    def number_elsewhere(self, code: str) -> int:
        """Number a cell that runs in another process, and keep its line."""
        number = self._open_cell(code, None, counts=True).count
        history: Any = self.history_manager
        if history is not None:
            history.store_inputs(number, code, code)
        return number

    def revive(self, counter: int) -> None:
        """Go on in a copy of the process, with ``counter`` or a later number for the next cell."""
        self._counter_lock = threading.Lock()
        self.counter = max(self.counter, counter)
        history: Any = self.history_manager
        if history is not None:
            history.revive(self.counter)

    def transform(self, code: str) -> tuple[str, Any]:
        """Transform IPython's syntax: (code, None), or (the code as it was, what was raised)."""
        if self._plain_code.is_plain(code):
            return (code if code.endswith("\n") else f"{code}\n"), None
        try:
            return self.transform_cell(code), None
        except Exception:  # noqa: BLE001  (a user's transformer; shown as the cell's error)
            return code, sys.exc_info()

    def own_runner(self, code: str, transformed: str, problem: Any) -> Runner | None:  # noqa: ANN401
        """Give what runs a cell that awaits where the user has chosen something (``%autoawait``).

        Args:
            code: the cell.
            transformed: what `transform` made of it.
            problem: what `transform` has met.
        """
        runner: Runner = self.loop_runner
        is_ipythons = runner is getattr(async_helpers, "_asyncio_runner", None)
        if is_ipythons or asyncio._get_running_loop() is None:  # noqa: SLF001
            return None  # The latter: in a thread of trio's, which awaits the cell itself.
        is_async = self.should_run_async(
            code, transformed_cell=transformed, preprocessing_exc_tuple=problem
        )
        return runner if is_async else None

    @override
    def transform_ast(self, node: Any) -> Any:
        """Apply the user's transformers; await magics that are coroutine functions."""
        node = super().transform_ast(node)
        if self.autoawait:
            for statement in node.body:
                if isinstance(statement, ast.Expr | ast.Assign) and self._is_async_magic(
                    statement.value
                ):
                    statement.value = ast.copy_location(ast.Await(statement.value), statement)
        return node

    def _is_async_magic(self, value: ast.expr) -> bool:
        if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)):
            return False
        kind = _MAGIC_CALLS.get(value.func.attr)
        if kind is None or not value.args or not isinstance(value.args[0], ast.Constant):
            return False
        return inspect.iscoroutinefunction(self.find_magic(str(value.args[0].value), kind))

    def runs_code_after_cells(self) -> bool:
        """Say whether somebody has registered something that is called at the end of a cell."""
        callbacks = self.events.callbacks
        named = (*callbacks["post_execute"], *callbacks["post_run_cell"])
        return any(getattr(call, "__module__", "") not in _OWN_CALLBACKS for call in named)

    # --- errors -----------------------------------------------------------------------------------

    @override
    def showtraceback(self, exc_tuple: Any = None, *arguments: Any, **options: Any) -> None:
        """Show the exception that ended a cell; the other parameters are IPython's.

        An interrupt that has come through is told first: the broker then waits for the traceback.
        What IPython only prints (exception groups, what cannot be formatted) is an error as well,
        and so is what would take it too long.
        """
        etype, value, trace = exc_tuple or sys.exc_info()
        if value is not None:
            trace = hide_our_frames(value, trace)
            exc_tuple = (etype, value, trace)
        context, cell = get_context(), self.cell
        if context is not None and isinstance(value, KeyboardInterrupt):
            self.lane.send(Caught(context.job))
        if cell is not None:
            cell.error = None
        if is_deep(value) and self.InteractiveTB.mode in _RICH_MODES:
            self._get_exc_info(exc_tuple)  # What `%debug` looks at.
        elif not holds_group(value):
            with suppress(*USER_FAILURES):
                super().showtraceback(exc_tuple, *arguments, **options)
                if "_showtraceback" in vars(self):
                    return  # A user's own (rich has one) does not tell us that it has shown it.
        if etype is None or value is None or etype is UsageError:
            return
        if cell is None or cell.error is not None:
            return
        self.show_plainly(value, trace)

    def show_plainly(self, error: BaseException, trace: TracebackType | None) -> None:
        """Publish an error as Python prints it: that takes no time and runs little code."""
        self._showtraceback(type(error), error, format_plainly(type(error), error, trace))

    @override
    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        """Publish an error under the running cell."""
        self._last_traceback = stb
        context, cell = get_context(), self.cell
        content: dict[str, Any] = {"ename": etype.__name__, "evalue": text_of(evalue)}
        content["traceback"] = stb
        if cell is not None:
            cell.traceback, cell.error = stb, (content["ename"], content["evalue"])
            cell.showed_display_error |= cell.output is not None
        message = error_message(context.message["metadata"]) if context else None
        if message is None:
            self.lane.publish(context, "error", encode(content))
        elif message:
            self.lane.put_text((context, StreamName.stdout, f"{message}\n"))
            self.lane.flush()

    @override
    def _format_exception_for_storage(
        self, exception: BaseException, *arguments: Any, **options: Any
    ) -> dict[str, Any]:
        """Keep with the history what was shown: to format it again takes as long again."""
        cell = self.cell
        if cell is None or cell.error is None:
            stored: dict[str, Any] = super()._format_exception_for_storage(
                exception, *arguments, **options
            )
            return stored
        ename, evalue = cell.error
        return {"ename": ename, "evalue": evalue, "traceback": cell.traceback}

    # --- payloads and exit ------------------------------------------------------------------------

    @override
    def init_payload(self) -> None:
        """Keep payloads by cell."""
        payloads: Any = CellPayloads(parent=self)
        payloads.shell = self
        self.payload_manager = payloads
        self.configurables.append(payloads)

    @override
    def init_hooks(self) -> None:
        """Show pages in the frontend."""
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(self._page), 99)

    def _page(
        self,
        text: str | dict[str, Any],
        start: int = 0,
        screen_lines: int = 0,  # noqa: ARG002  (the hook's signature)
        pager_cmd: str | None = None,  # noqa: ARG002
    ) -> None:
        data = text if isinstance(text, dict) else {"text/plain": text}
        self._write_payload({"source": "page", "data": data, "start": max(0, start)})

    def _write_payload(self, payload: dict[str, Any]) -> None:
        assert self.payload_manager is not None
        self.payload_manager.write_payload(payload)

    @override
    def set_next_input(self, s: str, replace: bool = False) -> None:
        """Ask the frontend to show ``s`` as the next input."""
        self._write_payload({"source": "set_next_input", "text": s, "replace": replace})

    def ask_exit(self) -> None:
        """End the kernel after the reply of the running cell."""
        keep = bool(self.keepkernel_on_exit)
        self.exit_now = not keep
        self._write_payload({"source": "ask_exit", "keepkernel": keep})
        context = get_context()
        self.lane.send(AskExit(keep, context.job if context else 0))

    # --- parents ----------------------------------------------------------------------------------

    def get_parent(self) -> Any:  # noqa: ANN401  (a message, or {})
        """Give the message that the running code answers to."""
        context = get_context()
        return context.message if context else {}

    @property
    def parent_header(self) -> Any:  # noqa: ANN401
        """The same, as ipykernel's shell names it."""
        return self.get_parent()

    def set_parent(self, parent: Mapping[str, Any]) -> None:
        """Let outputs appear under another request from here on, in this context."""
        adopt_parent(parent)

    def set_thread_parent(self, parent: Mapping[str, Any]) -> Token[JobContext | None]:
        """Let outputs of this thread appear under another request, until `reset_thread_parent`."""
        return adopt_parent(parent)

    def reset_thread_parent(self, tokens: Token[JobContext | None]) -> None:
        """Go back to the request from before the `set_thread_parent` that gave ``tokens``."""
        current_job.reset(tokens)

    # --- IPython's set-up steps -------------------------------------------------------------------

    @override
    def init_history(self) -> None:
        """Make the history of the profile; it is opened once this process is a worker."""
        self.history = CellHistory(shell=self, parent=self)
        history: Any = self.history
        self.history_manager: Any = history
        self.configurables.append(history)

    @override
    def init_environment(self) -> None:
        """Prepare the environment of child processes."""
        os.environ.update(ENVIRONMENT)

    @override
    def init_virtualenv(self) -> None:
        """Leave ``sys.path``: a kernel is installed in the environment that it serves."""

    @override
    def init_builtins(self) -> None:
        """Add IPython's names to ``builtins``, for good."""
        super().init_builtins()
        self.builtin_trap = LastingBuiltinTrap(shell=self)

    @override
    def init_display_pub(self) -> None:
        """Publish displays on the lane."""
        super().init_display_pub()
        publisher: Any = self.display_pub
        publisher.outlet = Outlet(self.lane)

    @override
    def init_displayhook(self) -> None:
        """Publish values on the lane, from the hook that stays in place."""
        super().init_displayhook()
        hook: Any = self.displayhook
        hook.outlet = Outlet(self.lane)
        self.display_trap = LastingDisplayTrap(hook=hook)
        self.display_trap.set()

    @override
    def enable_gui(self, gui: str | None = None) -> None:
        """Accept what needs no event loop of a toolkit, refuse the others."""
        if gui not in GUI_LOOPS:
            raise UsageError(
                f"The event loop of {gui!r} cannot run in this kernel: "
                "use %matplotlib inline or %matplotlib widget."
            )
        self.active_eventloop = gui


InteractiveShellABC.register(UnstuckShell)
# Libraries (rich, for one) know a notebook by this name of the shell's class, some with its module,
# and configuration files have sections of it.
UnstuckShell.__name__ = UnstuckShell.__qualname__ = "ZMQInteractiveShell"
UnstuckShell.__module__ = "ipykernel.zmqshell"
