"""The vocabulary of the kernel: channels, message types, run modes, tags and jobs.

Names and values follow the Jupyter messaging specification 5.5 and the concurrency reference that
unstuck implements. Importing this module imports nothing heavy: broker, worker and users share it.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any, Final, Literal, TypedDict

from typing_extensions import override


class NoValue(Enum):
    """Say "this argument was not given" where None is a value of its own."""

    token = 0


NO_VALUE: Final = NoValue.token


class SocketID(StrEnum):
    """The five Jupyter channels, by the names that a connection file gives them."""

    heartbeat = "hb"
    shell = "shell"
    stdin = "stdin"
    control = "control"
    iopub = "iopub"


class _Spelled(StrEnum):
    """Text that equals each of its spellings, as in the reference; it hashes as its value."""

    def _spellings(self) -> tuple[str, ...]:
        """Give the texts that it equals: with dashes, and its name."""
        return self.value, self.name

    @override
    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Spelled):
            return self is other
        if isinstance(other, str):
            return other in self._spellings()
        return NotImplemented

    @override
    def __ne__(self, other: object) -> bool:
        # str.__ne__ would answer before our __eq__ is asked.
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    @override
    def __hash__(self) -> int:
        return hash(self.value)


class RunMode(_Spelled):
    """How a request runs.

    ``str()`` gives the directive that chooses the mode in a cell (``##task``); the value is the
    bare name. A mode equals its name, its directive and its repr; it hashes as its name.
    """

    queue = "queue"
    task = "task"
    thread = "thread"
    blocking = "blocking"
    process = "process"

    @override
    def __str__(self) -> str:
        return f"##{self.value}"

    @override
    def __format__(self, format_spec: str) -> str:
        return format(str(self), format_spec)

    @override
    def __repr__(self) -> str:
        return f"<RunMode.{self.value}: '{self.value}'>"

    @override
    def _spellings(self) -> tuple[str, ...]:
        return self.value, str(self), repr(self)

    @classmethod
    def get_mode(cls, code: str) -> RunMode | None:
        """Give the mode that the first line of a cell asks for, or None.

        Raises:
            ValueError: it has an option that the mode does not have.
        """
        from unstuck.runmode import read_directive  # noqa: PLC0415  (it imports this module)

        directive = read_directive(code)
        return None if directive is None else directive.mode


class KernelConcurrencyMode(StrEnum):
    """Whether the kernel chooses a run mode for each request, or runs all of them blocking."""

    default = "default"
    blocking = "blocking"


class MsgType(StrEnum):
    """The message types that the concurrency reference knows, in its order."""

    kernel_info_request = "kernel_info_request"
    comm_info_request = "comm_info_request"
    execute_request = "execute_request"
    complete_request = "complete_request"
    is_complete_request = "is_complete_request"
    inspect_request = "inspect_request"
    history_request = "history_request"
    comm_open = "comm_open"
    comm_msg = "comm_msg"
    comm_close = "comm_close"
    interrupt_request = "interrupt_request"
    shutdown_request = "shutdown_request"
    debug_request = "debug_request"


class BrokerMsgType(StrEnum):
    """Message types that the broker serves by itself and that the reference does not list."""

    connect_request = "connect_request"
    usage_request = "usage_request"
    create_subshell_request = "create_subshell_request"
    delete_subshell_request = "delete_subshell_request"
    list_subshell_request = "list_subshell_request"
    restart_request = "restart_request"
    stack_request = "stack_request"
    state_request = "state_request"


AnyMsgType = MsgType | BrokerMsgType


class MetadataKeys(_Spelled):
    """Keys of a message's metadata that change how a cell runs."""

    tags = "tags"
    timeout = "timeout"
    suppress_error_message = "suppress-error-message"


class Tags(_Spelled):
    """Tags of a cell that change how it runs; ``timeout=`` and ``stop-on-error=`` take a value."""

    suppress_error = "suppress-error"
    raises_exception = "raises-exception"
    stop_on_error = "stop-on-error="
    timeout = "timeout="
    snapshot = "snapshot"
    no_snapshot = "no-snapshot"


class MsgHeader(TypedDict):
    """The header of a Jupyter message."""

    msg_id: str
    session: str
    username: str
    date: str
    msg_type: str
    version: str


class Message(TypedDict):
    """A Jupyter message as user code sees it."""

    header: MsgHeader
    parent_header: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: list[memoryview]


class Job(TypedDict):
    """One request while it runs, as ``utils.get_job()`` gives it."""

    msg: Message
    socket_id: SocketID
    socket: None
    ident: list[bytes]
    received_time: float
    run_mode: RunMode


class ExecuteContent(TypedDict):
    """The content of an execute_request."""

    code: str
    silent: bool
    store_history: bool
    user_expressions: dict[str, str]
    allow_stdin: bool
    stop_on_error: bool


Backend = Literal["asyncio", "trio"]
Content = dict[str, Any]
