"""One request that the worker runs, from its arrival to its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from unstuck.protocol import Run
from unstuck.runmode import RunModeRequest, get_run_mode
from unstuck.typing import KernelConcurrencyMode, MsgType, RunMode, SocketID, Tags
from unstuck_broker.actions import Lane
from unstuck_broker.outputs import OutputMeter
from unstuck_broker.wire import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unstuck.config import Config
    from unstuck_broker.gate import Arrival

INTROSPECTION = frozenset(
    {
        MsgType.complete_request,
        MsgType.inspect_request,
        MsgType.is_complete_request,
        MsgType.history_request,
    }
)
COMM = frozenset({MsgType.comm_open, MsgType.comm_msg, MsgType.comm_close})
IN_WORKER = frozenset({MsgType.execute_request, *INTROSPECTION, *COMM})
"""What the worker runs; the broker serves the rest."""


class ExecuteContent(Struct):
    """What the broker reads of an execute_request (messaging specification, "Execute")."""

    code: str
    silent: bool = False
    store_history: bool | None = None
    stop_on_error: bool = True

    @property
    def counts(self) -> bool:
        """Tell whether the cell uses up a number, as IPython counts."""
        stored = not self.silent if self.store_history is None else self.store_history
        return stored and not self.silent and bool(self.code) and not self.code.isspace()


_LOOKS = ("%snapshots", "%snapshot", "%rewind", "%unstuck")
"""Magics that change no variable."""
_execute_decoder = msgspec.json.Decoder(ExecuteContent)
_object_decoder = msgspec.json.Decoder(dict[str, Any])


class Job(Struct, eq=False):
    """A request on its way through the worker."""

    number: int
    """In the order of arrival; what the lanes call it."""
    request: Request
    kind: MsgType
    mode: RunMode
    received_s: float
    subshell: str | None = None
    stop_on_error: bool = False
    suppresses_error: bool = False
    """The worker shows a short message instead of an error, and the cell counts as run."""
    blocks_channel: bool = False
    timeout_s: float | None = None
    """Wall time from its start, after which the ladder begins."""
    meter: OutputMeter = field(default_factory=lambda: OutputMeter(0))
    is_silent: bool = False
    """A cell that shows nothing, not even its execute_input."""
    counts: bool = False
    execution_count: int | None = None
    """The number that its execute_input named."""
    timed_out: bool = False
    is_with_worker: bool = False
    """The worker has taken it from the tray: it needs no order."""
    has_effects: bool = True
    """It may change variables."""
    started_s: float | None = None
    """When it was handed to the worker."""

    @property
    def is_cell(self) -> bool:
        """Tell whether it runs user code as a cell."""
        return self.kind is MsgType.execute_request

    @property
    def queued(self) -> bool:
        """Tell whether it waits its turn in a queue."""
        return self.mode is RunMode.queue

    @property
    def closes_shell(self) -> bool:
        """Tell whether the shell channel is closed until it is over; control never is."""
        return self.blocks_channel and self.request.channel is SocketID.shell

    @property
    def in_main_thread(self) -> bool:
        """Tell whether SIGINT to the worker's main thread can reach it."""
        return self.lane is Lane.main and self.mode is not RunMode.task

    @property
    def lane(self) -> Lane:
        """Name the lane: what runs in the main thread goes there at once, without a hop."""
        threaded = self.mode in (RunMode.thread, RunMode.process) or self.subshell is not None
        return Lane.thread if threaded else Lane.main

    def input_content(self) -> bytes:
        """Give the content of a cell's execute_input."""
        code = _execute_decoder.decode(self.request.content_json).code
        return msgspec.json.encode({"code": code, "execution_count": self.execution_count})

    @property
    def size_bytes(self) -> int:
        """Give the memory that it holds while it waits."""
        return size_bytes(self.request)

    def run(self) -> Run:
        """Give the order for the worker."""
        request = self.request
        return Run(
            job=self.number,
            kind=self.kind,
            mode=self.mode,
            channel=request.channel,
            header=request.header_json,
            parent_header=request.parent_json,
            metadata=request.metadata_json,
            content=request.content_json,
            idents=list(request.idents),
            received_s=self.received_s,
            subshell=self.subshell,
            buffers=list(request.buffers),
        )


def size_bytes(request: Request) -> int:
    """Give the memory that a request holds while it waits."""
    return len(request.content_json) + sum(map(len, request.buffers)) + 1024


def make_job(
    arrival: Arrival, kind: MsgType, config: Config, concurrency_mode: KernelConcurrencyMode
) -> Job:
    """Read all that a request says about how it runs, and decide its run mode.

    Raises:
        ValueError: the content is malformed, the type is not allowed here, or a mode or timeout is
        wrong.
    """
    number, request, received_s = arrival
    metadata = (
        {} if request.metadata_json == b"{}" else _object_decoder.decode(request.metadata_json)
    )
    if kind is not MsgType.execute_request:
        mode = get_run_mode(
            kind,
            channel=request.channel,
            concurrency_mode=concurrency_mode,
            request=RunModeRequest(header_mode=request.header.run_mode, metadata=metadata),
        )
        return Job(
            number,
            request,
            kind,
            mode,
            received_s,
            blocks_channel=concurrency_mode is KernelConcurrencyMode.blocking,
            has_effects=kind in COMM,
        )
    try:
        content = _execute_decoder.decode(request.content_json)
    except msgspec.MsgspecError as error:
        raise ValueError(f"malformed execute_request: {error}") from None
    mode = get_run_mode(
        kind,
        channel=request.channel,
        concurrency_mode=concurrency_mode,
        request=RunModeRequest(
            content.code, request.header.run_mode, metadata, silent=content.silent
        ),
        allow_hash=config.hash_directive,
    )
    return Job(
        number,
        request,
        kind,
        mode,
        received_s,
        subshell=request.header.subshell_id if mode is RunMode.queue else None,
        stop_on_error=_stops_on_error(content, metadata),
        suppresses_error=Tags.suppress_error.value in _tags(metadata),
        blocks_channel=mode is RunMode.blocking,
        timeout_s=_timeout_s(metadata, config),
        meter=OutputMeter(config.output_bytes_per_cell),
        has_effects=not _only_looks(content.code),
        is_silent=content.silent,
        counts=content.counts,
    )


def _only_looks(code: str) -> bool:
    """Tell whether a cell does nothing but ask about snapshots or settings."""
    words = code.split(maxsplit=1)
    return bool(words) and words[0] in _LOOKS and "\n" not in code.strip()


def _tags(metadata: Mapping[str, Any]) -> list[str]:
    tags = metadata.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _tag_value(metadata: Mapping[str, Any], tag: Tags) -> str | None:
    """Give the value of a tag such as ``timeout=5``; None where there is none."""
    for entry in _tags(metadata):
        if entry.startswith(tag.value):
            return entry.removeprefix(tag.value)
    return None


def _stops_on_error(content: ExecuteContent, metadata: Mapping[str, Any]) -> bool:
    if content.silent:
        return False
    match _tag_value(metadata, Tags.stop_on_error):
        case None:
            return content.stop_on_error and Tags.raises_exception.value not in _tags(metadata)
        case value if value.lower() in ("true", "false"):
            return value.lower() == "true"
        case value:
            raise ValueError(f"tag stop-on-error={value}: write stop-on-error=true or =false")


def _timeout_s(metadata: Mapping[str, Any], config: Config) -> float | None:
    """Read the timeout of a cell: its metadata, else its tag, else the kernel's setting."""
    value = metadata.get("timeout")
    if value is None:
        value = _tag_value(metadata, Tags.timeout)
    if value is None:
        return config.cell_timeout_s or None
    try:
        timeout_s = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError, OverflowError):
        timeout_s = -1.0
    if not 0 <= timeout_s < float("inf"):
        raise ValueError(f"timeout {value!r} of this cell: it must be a number of seconds >= 0")
    return timeout_s or None
