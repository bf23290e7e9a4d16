"""execute_request: run a cell and make its reply, as messaging specification 5.5 has it."""

# IPython's methods have no types.
# mypy: allow-untyped-calls

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from unstuck.protocol import Outcome
from unstuck_worker.content import encode, encode_user
from unstuck_worker.job import Reply
from unstuck_worker.tags import error_message, stops_on_error
from unstuck_worker.tracebacks import USER_FAILURES, hide_our_frames

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult

    from unstuck.jobcontext import JobContext
    from unstuck_worker.cell import Cell
    from unstuck_worker.job import RunningJob
    from unstuck_worker.shell import UnstuckShell


class ExecuteRequest(msgspec.Struct):
    """What an execute_request says."""

    code: str
    silent: bool = False
    store_history: bool | None = None
    user_expressions: dict[str, Any] | None = None
    allow_stdin: bool = False
    stop_on_error: bool = True


_decoder = msgspec.json.Decoder(ExecuteRequest)


class Execution:
    """One execute_request on its way to a reply."""

    def __init__(self, shell: UnstuckShell, running: RunningJob, session: str) -> None:
        """Run the cell of ``running`` in ``shell``; ``session`` is the metadata's engine."""
        self._shell = shell
        self._running = running
        self._context: JobContext = running.context
        self._session = session
        self._started = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._metadata: dict[str, Any] = msgspec.json.decode(self._context.metadata or b"{}")

    async def run(self) -> Reply:
        """Run the cell; its reply is also left at the running job."""
        request = _decoder.decode(self._context.content)
        self._context.allow_stdin = request.allow_stdin
        content: dict[str, Any]
        try:
            content = await self._run_code(request)
        except BaseException as error:  # noqa: BLE001  (the end of a job, whatever ended it)
            content = self._describe_failure(error)
        self._running.reply = reply = self._make_reply(request, content)
        return reply

    async def _run_code(self, request: ExecuteRequest) -> dict[str, Any]:
        shell, context = self._shell, self._context
        store = not request.silent if request.store_history is None else request.store_history
        transformed, problem = shell.transform(request.code)
        result: ExecutionResult | None = None
        try:
            cell_run = shell.run_cell_async(
                request.code,
                store_history=store,
                silent=request.silent,
                transformed_cell=transformed,
                preprocessing_exc_tuple=problem,
                cell_id=self._metadata.get("cellId"),
                cell_meta=self._metadata,
            )
            runner = shell.own_runner(request.code, transformed, problem)
            result = await cell_run if runner is None else runner(cell_run)
        finally:
            if request.user_expressions or shell.runs_code_after_cells():
                shell.lane.flush()  # A value that was to leave with the reply.
            shell.events.trigger("post_execute")
            if not request.silent:
                shell.events.trigger("post_run_cell", result)
        assert result is not None
        error = (
            result.error_in_exec if result.error_before_exec is None else result.error_before_exec
        )
        cell: Cell = context.cell
        if error is None and not cell.showed_display_error:
            expressions = shell.user_expressions(request.user_expressions or {})
            return {"status": "ok", "user_expressions": expressions}
        return _error_content(error, cell)

    def _describe_failure(self, error: BaseException) -> dict[str, Any]:
        """Show an error that came past IPython, such as a KeyboardInterrupt at the very end."""
        cell: Cell | None = self._context.cell
        if cell is not None and cell.error is not None and isinstance(error, Exception):
            return _error_content(
                None, cell
            )  # Of a cell's error that was shown: a bad ``__str__``.
        self._shell.showtraceback((type(error), error, error.__traceback__))
        return _error_content(error, self._context.cell)

    def fail(self, error: BaseException) -> Reply:
        """Make the reply where `run` was cut short at its end: a second interrupt does that.

        Here none reaches the job any more.
        """
        cell: Cell | None = self._context.cell
        if cell is None or cell.error is None:
            self._shell.show_plainly(error, hide_our_frames(error, error.__traceback__))
        try:
            request = _decoder.decode(self._context.content)
        except msgspec.MsgspecError:
            request = ExecuteRequest("")
        return self._make_reply(request, _error_content(error, cell))

    def _make_reply(self, request: ExecuteRequest, content: dict[str, Any]) -> Reply:
        cell: Cell | None = self._context.cell
        content["execution_count"] = self._count(cell)
        content.setdefault("user_expressions", {})
        content["payload"] = list(cell.payloads) if cell else []
        if content["status"] == "error" and error_message(self._metadata) is not None:
            content["status"] = "ok"
        outcome = Outcome(content["status"])
        metadata = {
            "started": self._started,
            "dependencies_met": True,
            "engine": self._session,
            "status": content["status"],
        }
        is_error = outcome is Outcome.error
        stop = is_error and stops_on_error(self._metadata, request.stop_on_error)
        is_captured = cell is not None and cell.is_captured
        return Reply(outcome, encode_user(content), encode(metadata), stop, is_captured)

    def _count(self, cell: Cell | None) -> int:
        if cell is not None and cell.is_counted:
            return cell.count
        return self._shell.counter - 1


def _error_content(error: BaseException | None, cell: Cell | None) -> dict[str, Any]:
    """Describe an error; without one, what the cell showed last (a failing ``_repr_*_``)."""
    ename, evalue = (cell.error if cell else None) or ("Error", "")
    if error is not None:
        ename, evalue = type(error).__name__, text_of(error)
    traceback = cell.traceback if cell else None
    return {"status": "error", "ename": ename, "evalue": evalue, "traceback": traceback or []}


def text_of(error: BaseException) -> str:
    """Give the error's message, also when its ``__str__`` fails."""
    try:
        return str(error)
    except USER_FAILURES as failure:
        return f"<{type(failure).__name__} in {type(error).__name__}.__str__>"


def describe_error(error: BaseException) -> Reply:
    """Make the reply of a job that failed outside of a cell's code."""
    content = _error_content(error, None)
    content["execution_count"] = 0
    return Reply(Outcome.error, encode(content))
