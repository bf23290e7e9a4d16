"""``%%thread`` and ``%%task``: run the rest of a cell in a Caller thread, or as a task.

The cell waits for the future and shows its result, while the event loop goes on; with ``wait=no``
it shows the future and ends.
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Any, cast

from IPython.core.displayhook import DisplayHook
from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class, no_var_expand

from unstuck.runmode import read_directive

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import CodeType

    from IPython.core.interactiveshell import InteractiveShell

    from unstuck.future import Future

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
        future: Future[object]
        if options:
            future = Caller.get(**options).call_soon(run_body, self._owner, cell)
        else:
            future = Caller.to_thread(run_body, self._owner, cell)
        return await _result(future, line)

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
