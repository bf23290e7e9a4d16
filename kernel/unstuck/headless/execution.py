"""Run the cells of a notebook one after another; no cell can hold up the run beyond its time.

Threads: the event loop's. A cell that reached its limit, or a stop, is interrupted; what does not
react is killed with its kernel.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from unstuck.headless.notebook import error_output, first_line, is_code, stderr_output
from unstuck.headless.report import Cause, CellFailure, Observer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbformat import NotebookNode

    from unstuck.headless.kernel import HeadlessKernel
    from unstuck.headless.stop import StopRequest

INTERRUPT_GRACE_S = 5.0
"""After an interrupt: how long the reply may take. The kernel's own ladder ends before."""
LAST_OUTPUT_S = 60
"""After a reply: how long the outputs that precede it may take to arrive."""


def own_timeout_s(metadata: Mapping[str, Any]) -> float | None:
    """Read the limit a cell sets itself: ``timeout`` in its metadata, or a ``timeout=`` tag."""
    tags = metadata.get("tags", [])
    tagged = [str(tag).removeprefix("timeout=") for tag in tags if str(tag).startswith("timeout=")]
    for value in (metadata.get("timeout"), *tagged):
        try:
            seconds = float(value)  # type: ignore[arg-type] # what is no number raises
        except (TypeError, ValueError):
            continue
        if seconds > 0:
            return seconds
    return None


@dataclass(slots=True)
class Execution:
    """The cells of one notebook on their way through one kernel."""

    notebook: NotebookNode
    kernel: HeadlessKernel
    observer: Observer
    stop: StopRequest
    allow_errors: bool = False
    timeout_s: float | None = None
    failures: list[CellFailure] = field(default_factory=list[CellFailure])
    cells_run: int = 0
    _reply: Mapping[str, Any] | None = None
    """The content of the running cell's reply, when it has come."""
    _client: NotebookClient = field(init=False)

    def __post_init__(self) -> None:
        """Make the client that turns messages into outputs."""
        self._client = NotebookClient(
            self.notebook,
            km=self.kernel.manager,
            allow_errors=self.allow_errors,
            timeout=None,
            iopub_timeout=LAST_OUTPUT_S,
            raise_on_iopub_timeout=True,
            on_cell_executed=self._note_reply,
        )
        self._client.kc = self.kernel.client

    async def run(self) -> None:
        """Run the cells until the end, a failure that is not allowed, or a stop."""
        try:
            for index, cell in enumerate(self.notebook.cells):
                if self.stop.asked:
                    break
                if is_code(cell) and not await self._run_cell(cell, index):
                    break
        finally:
            await self.kernel.outputs.drain()
            self._client.set_widgets_metadata()

    async def _run_cell(self, cell: NotebookNode, index: int) -> bool:
        """Run one cell; say whether the next one may run."""
        self.cells_run += 1
        self.observer.cell_started(self.cells_run, first_line(cell))
        started_s = time.monotonic()
        failure = await self._outcome(cell, index)
        if failure is not None:
            self.failures.append(failure)
        duration_s = time.monotonic() - started_s
        self.observer.cell_ended(self.cells_run, duration_s, failed=failure is not None)
        allowed = self.allow_errors and self.kernel.manager.has_kernel
        return failure is None or (allowed and failure.cause in (Cause.error, Cause.timeout))

    async def _outcome(self, cell: NotebookNode, index: int) -> CellFailure | None:
        """Send a cell and wait for its end, forced if need be."""
        self._reply = None
        client = self.kernel.client
        client.cell_metadata = {**cell.metadata, "cellId": cell.get("id", "")}
        limit_s = own_timeout_s(cell.metadata) or self.timeout_s
        started_s = time.monotonic()
        job = asyncio.ensure_future(self._client.async_execute_cell(cell, index))
        cause = Cause.error
        last_s = None if limit_s is None else limit_s + self.kernel.overtime_s
        if not await self.stop.watch(job, last_s):
            cause = Cause.stopped if self.stop.asked else Cause.timeout
            await self._end(job)
        self._keep_late_outputs(cell, index)
        error = await _error_of(job)
        if cause is Cause.error:
            cause = self._cause_of(error, limit_s, started_s)
        is_fine = error is None and self._error is None
        if (is_fine and cause is not Cause.timeout) or self._is_expected(cell, cause):
            return None
        failure = await self._describe(cause, index, error, limit_s)
        _note_in_cell(cell, failure)
        return failure

    def _is_expected(self, cell: NotebookNode, cause: Cause) -> bool:
        """Tell whether a cell announces that it fails, also by a limit that it sets itself."""
        announced = "raises-exception" in cell.metadata.get("tags", [])
        own_limit = self._error is not None and own_timeout_s(cell.metadata) is not None
        return announced and (cause is Cause.error or (cause is Cause.timeout and own_limit))

    async def _end(self, job: asyncio.Future[Any]) -> None:
        """Interrupt the running cell; kill its kernel when it does not react."""
        await self.kernel.interrupt()
        if not await self.stop.watch(job, INTERRUPT_GRACE_S, asks=2):
            await self.kernel.kill()
            job.cancel()

    def _note_reply(self, *, execute_reply: Mapping[str, Any], **_: object) -> None:
        self._reply = execute_reply["content"]

    @property
    def _error(self) -> Mapping[str, Any] | None:
        """The reply's content when it is not a good one."""
        reply = self._reply
        return None if reply is None or reply["status"] == "ok" else reply

    def _cause_of(
        self, error: BaseException | None, limit_s: float | None, started_s: float
    ) -> Cause:
        """Tell the causes apart that come with the cell's own end."""
        if isinstance(error, DeadKernelError):
            return Cause.death
        ename = (self._error or {}).get("ename")
        late = limit_s is not None and time.monotonic() >= started_s + limit_s
        return Cause.timeout if late and ename == "TimeoutError" else Cause.error

    def _keep_late_outputs(self, cell: NotebookNode, index: int) -> None:
        client = self._client

        def deliver(message: dict[str, Any]) -> None:
            client.process_message(message, cell, index)

        self.kernel.outputs.keep(self.kernel.client.sent_id, deliver)

    async def _describe(
        self, cause: Cause, index: int, error: BaseException | None, limit_s: float | None
    ) -> CellFailure:
        """Say what happened to a cell, in words."""
        reply = self._error or {}
        ename, evalue = str(reply.get("ename", "")), str(reply.get("evalue", ""))
        killed = "; it did not react to an interrupt, so its kernel was killed"
        ended = killed if self._reply is None else ""
        match cause:
            case Cause.timeout if ename == "TimeoutError":
                pass  # a kernel of ours kept the limit itself, and knows more
            case Cause.timeout:
                ename = "TimeoutError"
                evalue = f"the cell ran longer than {limit_s:g} s{ended}"
            case Cause.stopped:
                ename, evalue = "KeyboardInterrupt", f"the run was stopped{ended}"
            case Cause.death:
                how = await self.kernel.exit_status()
                ename, evalue = "DeadKernelError", f"the kernel died in this cell ({how})"
            case Cause.error:
                ename = ename or (type(error).__name__ if error else "Aborted")
                evalue = evalue or (str(error) if error else "the kernel did not run this cell")
        traceback = reply.get("traceback") or self._last_words(cause)
        return CellFailure(
            cause=cause,
            cell_number=index + 1,
            first_line=first_line(self.notebook.cells[index]),
            ename=ename,
            evalue=evalue,
            traceback=[line for part in traceback for line in str(part).splitlines()],
        )

    def _last_words(self, cause: Cause) -> list[str]:
        """Give what a kernel that is gone wrote itself."""
        return self.kernel.log_tail() if cause is Cause.death else []


async def _error_of(job: asyncio.Future[Any]) -> BaseException | None:
    """Wait for the end of a job that is done or cancelled; give its error."""
    try:
        await job
    except CellExecutionError:
        pass  # the reply says the same
    except asyncio.CancelledError as error:
        if not job.cancelled():
            raise
        return error
    except Exception as error:  # noqa: BLE001 - nbclient on what the cell sent: told as its failure
        return error
    return None


def _note_in_cell(cell: NotebookNode, failure: CellFailure) -> None:
    """Leave a failure in the notebook too, where the kernel itself could not tell."""
    text = f"{failure.ename}: {failure.evalue}"
    errors = [output.ename for output in cell.outputs if output.output_type == "error"]
    if not errors:
        traceback = [*failure.traceback, text]
        cell.outputs.append(
            error_output(ename=failure.ename, evalue=failure.evalue, traceback=traceback)
        )
    elif failure.ename not in errors:
        # The kernel knows of an interrupt only, not of what it was for.
        cell.outputs.append(stderr_output(text + "\n"))
