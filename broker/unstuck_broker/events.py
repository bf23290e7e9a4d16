"""What happens to the broker: every input of the core, as facts."""

from __future__ import annotations

from msgspec import Struct

from unstuck.protocol import CopyReady, StreamName, ToBroker
from unstuck_broker.reason import Reason
from unstuck_broker.wire import Request


class Received(Struct, frozen=True):
    """A verified client message came in on shell, control or stdin."""

    request: Request


class Subscribed(Struct, frozen=True):
    """A client subscribed on iopub."""

    topic: bytes


class FromWorker(Struct, frozen=True):
    """The worker wrote a message on its output lane."""

    message: ToBroker


class PipeText(Struct, frozen=True):
    """Text came through fd 1 or 2 of the worker's process tree."""

    name: StreamName
    text: str
    parent_header: bytes | None = None
    """The cell whose child processes hold the pipe; None for the pipe in use now."""


class WorkerExited(Struct, frozen=True):
    """The worker is dead, and so is its process tree."""

    exit_code: int | None
    signal_number: int | None
    stack: str = ""
    """The Python stacks that faulthandler wrote while it died."""
    last_words: str = ""
    """The last lines of its fd 2."""
    reason: Reason | None = None
    """Why we killed it, where we did; or why there is none."""


class StackTaken(Struct, frozen=True):
    """The Python stacks of all threads, taken from outside."""

    stack: str
    requests: tuple[int, ...] = ()
    """Numbers of the `actions.TakeStack` orders that it answers."""


class Asked(Struct, frozen=True):
    """An `actions.AskClient` was carried out: the question went out under this message id."""

    number: int
    msg_id: str


class Measured(Struct, frozen=True):
    """The answer to an `actions.MeasureUsage`."""

    job: int
    content: bytes


class WorkerProgress(Struct, frozen=True):
    """What the watch of the worker saw."""

    gil_free: bool
    """Its lane thread answered a ping in time."""
    main_steps: int


class LimitExceeded(Struct, frozen=True):
    """The worker's process tree is beyond a limit that the user set."""

    reason: Reason


class CopyAppeared(Struct, frozen=True):
    """A dormant copy of the worker says that it is there."""

    word: CopyReady


class CopyGone(Struct, frozen=True):
    """A dormant copy, or its spare, has ended by itself."""

    number: int
    pid: int


class CopiesMeasured(Struct, frozen=True):
    """What the dormant copies cost."""

    memory: dict[int, int]
    """By number: the bytes that dropping this one alone would free."""
    total_bytes: int
    """What dropping all would free."""
    budget_bytes: int
    """What they may cost."""


class OutputsHeld(Struct, frozen=True):
    """Whether the worker's outputs are left unread, since a subscriber is behind."""

    held: bool


class Signalled(Struct, frozen=True):
    """The broker got SIGINT: a terminal's Ctrl-C, or a KernelManager in signal mode."""


class Terminated(Struct, frozen=True):
    """The broker got SIGTERM or SIGHUP."""


class Ticked(Struct, frozen=True):
    """A deadline that the core named has passed."""


Event = (
    Received
    | Subscribed
    | FromWorker
    | PipeText
    | WorkerExited
    | StackTaken
    | Asked
    | Measured
    | WorkerProgress
    | LimitExceeded
    | CopyAppeared
    | CopyGone
    | CopiesMeasured
    | OutputsHeld
    | Signalled
    | Terminated
    | Ticked
)
