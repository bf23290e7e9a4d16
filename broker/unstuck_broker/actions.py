"""What the core orders: every effect on the world, as values that `app` carries out in order."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

from unstuck.protocol import Promote, Run, ToWorker
from unstuck_broker.reason import Reason
from unstuck_broker.wire import Request


class Lane(Enum):
    """The two lanes into the worker."""

    main = "main"
    thread = "thread"


class ReplyToClient(Struct, frozen=True):
    """Answer one request on the channel where it came."""

    request: Request
    msg_type: str
    content: bytes
    metadata: bytes = b"{}"
    buffers: Sequence[bytes | memoryview] = ()


class PublishToClients(Struct, frozen=True):
    """Send one message to all who subscribe to iopub."""

    msg_type: str
    content: bytes
    parent_header: bytes = b"{}"
    metadata: bytes = b"{}"
    topic: bytes = b""
    buffers: Sequence[bytes | memoryview] = ()


class AskClient(Struct, frozen=True):
    """Send an input_request on stdin to the client of a request."""

    request: Request
    content: bytes
    number: int
    """Of the `InputRequest`; an `events.Asked` tells the message id that was given."""


class SendToWorker(Struct, frozen=True):
    """Write a message on a lane."""

    lane: Lane
    message: ToWorker


class LendToWorker(Struct, frozen=True):
    """Put a job into the tray: the worker takes it when the cell before it has ended well."""

    run: Run


class SpawnWorker(Struct, frozen=True):
    """Start a worker, after ``delay_s`` when the last ones did not get up."""

    delay_s: float = 0.0
    donor: int | None = None
    """The number of the copy whose variables it takes over."""


class SignalWorker(Struct, frozen=True):
    """Send SIGINT to the worker's main thread; with ``tree`` to its child processes too."""

    tree: bool = False


class KillWorker(Struct, frozen=True):
    """Kill the worker and all that it started; `events.WorkerExited` follows."""

    reason: Reason


class StopWorker(Struct, frozen=True):
    """Let the worker run ``finally`` blocks and atexit handlers for ``grace_s``, then kill it."""

    grace_s: float


class TakeStack(Struct, frozen=True):
    """Have the stacks of the worker's threads written; `events.StackTaken` follows."""

    number: int


class MeasureUsage(Struct, frozen=True):
    """Measure CPU and memory of the process tree; `events.Measured` follows."""

    job: int


class PromoteCopy(Struct, frozen=True):
    """Make a dormant copy the worker."""

    number: int
    order: Promote


class DropCopies(Struct, frozen=True):
    """Kill dormant copies."""

    numbers: tuple[int, ...]


class Exit(Struct, frozen=True):
    """End the kernel: get the replies out, leave the worker its grace, exit."""

    restart: bool = False


class Log(Struct, frozen=True):
    """Write one line into the log."""

    line: str


Action = (
    ReplyToClient
    | PublishToClients
    | AskClient
    | SendToWorker
    | LendToWorker
    | SpawnWorker
    | SignalWorker
    | KillWorker
    | StopWorker
    | TakeStack
    | MeasureUsage
    | PromoteCopy
    | DropCopies
    | Exit
    | Log
)


def urgency(action: Action) -> int:
    """Order the actions of one decision; those of equal urgency keep their order.

    The worker first: it runs the next cell while we sign and send the answer to the last.
    """
    return 0 if isinstance(action, SendToWorker | LendToWorker) else 1
