"""How one request runs: the one decision, as a pure function, shared by broker and worker.

The broker decides with it for every request; users ask it through ``kernel.get_run_mode``. The
table and the precedence are those of the concurrency reference, with our decisions where it is
silent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

from unstuck.typing import (
    AnyMsgType,
    BrokerMsgType,
    KernelConcurrencyMode,
    MsgType,
    RunMode,
    SocketID,
)

THREAD_OPTIONS = frozenset({"name", "backend"})

_VALUE = r"""[\w.\-]+|'[^']+'|"[^"]+\""""
_OPTION = re.compile(rf"(\w+)=({_VALUE})")
_DIRECTIVE = re.compile(
    rf"""(?P<sign>\#\#|RunMode\.|\#[ ])(?P<mode>queue|task|thread|blocking|process)
        (?P<options>(?:[ \t]+\w+=(?:{_VALUE}))*)
        [ \t]*(?:\#.*)?""",
    re.VERBOSE,
)


class Directive(NamedTuple):
    """What the first line of a cell asks for."""

    mode: RunMode
    options: dict[str, str]
    """Of ``##thread``: ``name`` and ``backend``."""


class RunModeRequest(NamedTuple):
    """What a request says about its own run mode; only execute requests have code."""

    code: str = ""
    header_mode: object = None
    metadata: Mapping[str, Any] = {}
    silent: bool = False


def read_directive(code: str, *, allow_hash: bool = False) -> Directive | None:
    """Read the directive on the first line of a cell that is not blank.

    Args:
        code: the cell's source.
        allow_hash: take ``# task`` for a directive too (newer versions of the reference do).

    Raises:
        ValueError: a directive with an option that its mode does not have.
    """
    line = code.lstrip().split("\n", 1)[0].rstrip()
    match = _DIRECTIVE.fullmatch(line)
    if match is None or (match["sign"] == "# " and not allow_hash):
        return None
    mode = RunMode(match["mode"])
    options = {name: _unquoted(value) for name, value in _OPTION.findall(match["options"])}
    allowed = THREAD_OPTIONS if mode is RunMode.thread else frozenset[str]()
    if unknown := sorted(set(options) - allowed):
        takes = f"takes {', '.join(sorted(allowed))}" if allowed else "takes no options"
        raise ValueError(f"unknown option {', '.join(unknown)} in {line!r}: {mode} {takes}")
    if options.get("backend", "asyncio") not in ("asyncio", "trio"):
        raise ValueError(f"unknown backend in {line!r}: it is asyncio or trio")
    return Directive(mode, options)


def _unquoted(value: str) -> str:
    return value[1:-1] if value[0] in "'\"" else value


def parse_run_mode(value: object, where: str) -> RunMode:
    """Read a run mode by its name or its directive.

    Raises:
        ValueError: ``value`` names no run mode; the message says what it was and where it stood.
    """
    if isinstance(value, str):
        name = value.removeprefix("##").removeprefix("RunMode.")
        if name in RunMode.__members__:
            return RunMode[name]
    names = ", ".join(RunMode.__members__)
    raise ValueError(f"unknown run mode {value!r} in the {where}: use one of {names}")


def _metadata_mode(metadata: Mapping[str, Any]) -> object:
    """Find ``run_mode`` in a message's metadata, at the top or under our own name."""
    if metadata.get("run_mode") is not None:
        return metadata["run_mode"]
    ours = metadata.get("unstuck")
    return ours.get("run_mode") if isinstance(ours, Mapping) else None


def _tag_mode(tags: object) -> RunMode | None:
    """Give the mode that a tag names; of several the first in the order of `RunMode`."""
    if not isinstance(tags, Sequence) or isinstance(tags, str):
        return None
    named: Iterable[RunMode] = (mode for mode in RunMode if mode.value in list(map(_plain, tags)))
    return next(iter(named), None)


def _plain(tag: object) -> str:
    return tag.removeprefix("##") if isinstance(tag, str) else ""


def _asked_mode(request: RunModeRequest) -> RunMode | None:
    """Read the mode that a message of any type asks for: in its header, else in its metadata."""
    if request.header_mode is not None:
        return parse_run_mode(request.header_mode, "message header")
    if (mode := _metadata_mode(request.metadata)) is not None:
        return parse_run_mode(mode, "message metadata")
    return None


def _execute_mode(request: RunModeRequest, *, allow_hash: bool) -> RunMode:
    """Choose the mode of a cell on shell: code, header, metadata, silent, tag, queue."""
    if directive := read_directive(request.code, allow_hash=allow_hash):
        return directive.mode
    if (mode := _asked_mode(request)) is not None:
        return mode
    if request.silent:
        return RunMode.task
    return _tag_mode(request.metadata.get("tags")) or RunMode.queue


def get_run_mode(
    kind: AnyMsgType,
    *,
    channel: SocketID = SocketID.shell,
    concurrency_mode: KernelConcurrencyMode = KernelConcurrencyMode.default,
    request: RunModeRequest | None = None,
    allow_hash: bool = False,
) -> RunMode:
    """Decide how a request runs.

    Args:
        kind: the message type.
        channel: shell or control.
        concurrency_mode: the kernel's; ``blocking`` overrules everything else.
        request: what the request itself says; without it only the table is asked.
        allow_hash: take ``# task`` on the first line for a directive.

    Raises:
        ValueError: the type is not allowed on this channel, or the request names an unknown mode,
        or one that its type does not take.
    """
    if concurrency_mode is KernelConcurrencyMode.blocking:
        return RunMode.blocking
    if kind is MsgType.execute_request:
        if channel is SocketID.control:
            return RunMode.task
        return _execute_mode(request or RunModeRequest(), allow_hash=allow_hash)
    mode = _table_mode(kind, channel)
    asked = _asked_mode(request) if request else None
    if asked not in (None, mode):
        raise ValueError(f"{kind} runs as {mode.name}: only execute_request takes a run mode")
    return mode


def _table_mode(kind: AnyMsgType, channel: SocketID) -> RunMode:
    """Look up how a request runs that says nothing about it, in default mode."""
    match kind:
        case MsgType.execute_request:
            return RunMode.task if channel is SocketID.control else RunMode.queue
        case MsgType.shutdown_request | MsgType.debug_request:
            if channel is SocketID.shell:
                raise ValueError(f"{kind} is not allowed on shell: send it on control")
            return RunMode.task
        case (
            MsgType.inspect_request
            | MsgType.complete_request
            | MsgType.is_complete_request
            | MsgType.history_request
        ):
            return RunMode.thread
        case (
            MsgType.kernel_info_request
            | MsgType.comm_info_request
            | MsgType.comm_open
            | MsgType.comm_close
        ):
            return RunMode.blocking
        case MsgType.comm_msg | MsgType.interrupt_request:
            return RunMode.task
        case BrokerMsgType():
            return RunMode.blocking
        case _:
            assert_never(kind)


def all_concurrency_run_modes(
    channels: Iterable[SocketID] = (SocketID.shell, SocketID.control),
    kinds: Iterable[MsgType] = tuple(MsgType),
) -> dict[str, tuple[SocketID | KernelConcurrencyMode | MsgType | RunMode | None, ...]]:
    """List the run mode of every (channel, concurrency mode, message type), as columns.

    A combination that is not allowed has None, as in the reference.
    """
    rows: list[tuple[SocketID, KernelConcurrencyMode, MsgType, RunMode | None]] = []
    kinds = tuple(kinds)
    for channel in channels:
        for concurrency_mode in KernelConcurrencyMode:
            for kind in kinds:
                try:
                    mode = get_run_mode(kind, channel=channel, concurrency_mode=concurrency_mode)
                except ValueError:
                    mode = None
                rows.append((channel, concurrency_mode, kind, mode))
    names = ("SocketID", "KernelConcurrencyMode", "MsgType", "RunMode")
    return {name: tuple(row[at] for row in rows) for at, name in enumerate(names)}
