"""``%%thread`` and ``%%task``: run the rest of a cell in a Caller thread, or as a task.

The cell waits for the future and shows its result, while the event loop goes on; with ``wait=no``
it shows the future and ends.
"""

from __future__ import annotations

import ast
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from IPython.core.displayhook import DisplayHook
from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class, no_var_expand

from unstuck.runmode import read_directive
from unstuck_worker.job import interrupt_call

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import CodeType

    from IPython.core.interactiveshell import InteractiveShell

    from unstuck.future import Future
    from unstuck_worker.lane import OutputLane

NO_WAIT = "wait=no"


@magics_class
class CellMagics(Magics):
    """Run a cell's body elsewhere."""

    @no_var_expand
    @cell_magic
    async def thread(self, line: str, cell: str) -> object:
        """Run the cell's body in a Caller thread.

        Usage: ``%%thread [name=NAME] [backend=asyncio|trio] [wait=no]``. Bodies of one name run in
        one thread.
        """
        from unstuck.caller import Caller  # noqa: PLC0415  (a Caller needs anyio: not at start-up)

        options = _options("thread", line)
        body = ThreadBody(self._owner, cell)
        try:
            call = Caller.get(**options).call_soon if options else Caller.to_thread
            return await _result(call(body.run), line)
        except BaseException:
            body.end()
            raise

    @no_var_expand
    @cell_magic
    async def task(self, line: str, cell: str) -> object:
        """Run the cell's body as a task in the event loop of this thread; ``%%task [wait=no]``."""
        from unstuck.caller import Caller  # noqa: PLC0415  (a Caller needs anyio: not at start-up)

        _options("task", line)
        return await _result(Caller().call_soon(run_body, self._owner, cell), line)

    @property
    def _owner(self) -> InteractiveShell:
        if self.shell is None:
            raise UsageError("This magic needs a shell.")
        return self.shell


class ThreadBody:
    """A cell's body in another thread: it ends with the cell, also where it does not await."""

    def __init__(self, shell: InteractiveShell, code: str) -> None:
        """Run ``code`` in the cells' namespace."""
        self._shell = shell
        self._code = code
        self._call: Future[Any] | None = None
        self._is_dropped = False

    async def run(self) -> object:
        """Run it, in the thread that it is for."""
        from unstuck.caller import Caller  # noqa: PLC0415  (loaded long before)

        # An interrupt may come before the cell knows what it has started: the body tells.
        self._call = Caller.current_future()
        return None if self._is_dropped else await run_body(self._shell, self._code)

    def end(self) -> None:
        """End it because the cell ends; nothing where it has ended by itself."""
        self._is_dropped = True
        call = self._call
        if call is not None and call.executing:
            lane: OutputLane = getattr(self._shell, "lane")  # noqa: B009  (our shell's)
            lane.while_nobody_writes(partial(interrupt_call, call))
        elif call is not None:
            call.cancel()


async def _result(future: Future[object], line: str) -> object:
    """Wait for the result, or give the future where ``wait=no`` says so."""
    return future if NO_WAIT in line.split() else await future


def _options(mode: str, line: str) -> dict[str, Any]:
    """Read the options behind ``%%thread`` by the grammar of the ``##thread`` directive."""
    words = [word for word in line.split() if word != NO_WAIT]
    if unknown := [word for word in words if word.startswith("wait=")]:
        raise UsageError(f"%%{mode} takes {NO_WAIT}, not {unknown[0]}: it waits without")
    given = " ".join(words)
    try:
        directive = read_directive(f"##{mode} {given}")
    except ValueError as error:
        raise UsageError(str(error).replace("##", "%%")) from None
    if directive is None:
        raise UsageError(f"%%{mode} takes options as name=value: {given!r} is none")
    return directive.options


async def run_body(shell: InteractiveShell, body: str) -> object:
    """Run code in the cells' namespace; give its last value, or None behind a semicolon."""
    value: object = None
    for code in _compile(shell, body):
        value = eval(code, shell.user_global_ns, shell.user_ns)  # noqa: S307  (the user's own cell)
        if code.co_flags & inspect.CO_COROUTINE:
            value = await cast("Awaitable[object]", value)
    quiet = DisplayHook.semicolon_at_end_of_expression(body)
    return None if quiet else value


def _compile(shell: InteractiveShell, body: str) -> list[CodeType]:
    """Compile all statements but a last expression, and that expression."""
    cell = shell.transform_cell(body)  # IPython's is untyped
    name = shell.compile.cache(cell, shell.execution_count, raw_code=body)
    tree = shell.compile.ast_parse(cell, filename=name)
    tree = shell.transform_ast(tree)  # IPython's is untyped
    # The shell's compiler switches await on for a moment: not while another thread uses it.
    flags = shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    if not (tree.body and isinstance(tree.body[-1], ast.Expr)):
        return [compile(tree, name, "exec", flags, dont_inherit=True)]
    last = ast.Expression(tree.body.pop().value)
    return [
        compile(tree, name, "exec", flags, dont_inherit=True),
        compile(last, name, "eval", flags, dont_inherit=True),
    ]
