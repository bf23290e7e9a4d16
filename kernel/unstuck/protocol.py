"""Every message between broker and worker, as tagged unions: `ToWorker` and `ToBroker`.

A dormant copy of the worker has a connection of its own: `ToCopy` and `FromCopy`.

JSON that only one side reads travels as bytes and is never decoded by the other: the broker hands a
request's content to the worker as it came, the worker hands a publication's content out as it goes
on the wire. A job is named by a number that the broker gives; it is never used twice in a broker's
life.

``buffers`` are carried beside the message (see `unstuck.codec`), so that megabytes are not copied
twice.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct

from unstuck.typing import KernelConcurrencyMode, MsgType, RunMode, SocketID


class _Message(Struct, frozen=True, array_like=True):
    """Settings shared by all lane messages: immutable, and arrays on the wire (no field names)."""


CopyKind = Literal["promotable", "donor"]
"""A copy that can become the worker, or one whose memory only is whole."""


# --- broker to worker -----------------------------------------------------------------------------


class Start(_Message, frozen=True, tag="start"):
    """The first message of a worker's life, on the main lane."""

    session: str
    connection_file: str
    settings: dict[str, Any]
    """All fields of `unstuck.config.Config`: `%unstuck` shows them, the worker reads its share."""
    execution_count: int = 1
    copies_address: str = ""
    """Abstract AF_UNIX address, without the NUL, where copies report; empty: no snapshots."""
    snapshot_floor: int = 0
    """Snapshots up to this number belong to workers before."""
    takes_over: bool = False
    """`Receive` follows: the worker says that it is ready only when it has done that."""
    is_first: bool = True
    """The kernel's first worker: the one that loads `restore_file`."""


class Run(_Message, frozen=True, tag="run"):
    """Run one request: on the main lane queue, task, blocking; on the thread lane the others."""

    job: int
    kind: MsgType
    mode: RunMode
    channel: SocketID
    header: bytes
    parent_header: bytes
    metadata: bytes
    content: bytes
    idents: list[bytes]
    received_s: float
    """When the broker received it, on CLOCK_MONOTONIC."""
    subshell: str | None = None
    buffers: list[Any] = []  # bytes-like; empty in the packed message


class ControlParent(_Message, frozen=True, tag="control_parent"):
    """The newest request on control that the broker has served; right before a `Run`.

    Libraries find it by ``kernel.get_parent("control")``.
    """

    header: bytes
    parent_header: bytes
    metadata: bytes
    content: bytes
    idents: list[bytes]


class InputReply(_Message, frozen=True, tag="input_reply"):
    """The answer to an `InputRequest`; thread lane. ``value`` is None when it is withdrawn."""

    request: int
    value: str | None


class Interrupt(_Message, frozen=True, tag="interrupt"):
    """Interrupt exactly these jobs; thread lane.

    ``hard`` asks for an asynchronous KeyboardInterrupt in the thread that runs the job, where a
    softer one (cancellation, SIGINT by the lane thread) was tried before.
    """

    jobs: list[int]
    hard: bool = False


class Ping(_Message, frozen=True, tag="ping"):
    """Ask for a `Pong`; thread lane."""

    number: int


class OpenSubshell(_Message, frozen=True, tag="open_subshell"):
    """Start the Caller thread of a subshell; thread lane."""

    subshell: str


class CloseSubshell(_Message, frozen=True, tag="close_subshell"):
    """End the Caller thread of a subshell once its running job has ended; thread lane."""

    subshell: str


class Stop(_Message, frozen=True, tag="stop"):
    """End the process, with ``finally`` blocks and atexit handlers; thread lane."""

    grace_s: float


class Receive(_Message, frozen=True, tag="receive"):
    """Take the variables over from a donor; main lane, right after `Start`.

    `Received` answers before `Ready`.
    """

    address: str
    """Abstract AF_UNIX stream address, without the NUL, where the donor listens."""
    deadline_s: float
    name: str = ""
    """Of the snapshot: the receiver takes one of this name, when it has the variables."""


class SnapshotRow(_Message, frozen=True):
    """One snapshot as `%snapshots` shows it: a part of `SnapshotList`."""

    number: int
    name: str
    taken_at: float
    """Unix seconds."""
    cell: int
    """The execution count of the last cell whose effects it has."""
    kind: CopyKind
    reasons: list[str]
    memory_bytes: int
    """What dropping it would free; -1 where nobody has measured yet."""
    is_current: bool
    """Nothing has run since."""


class SnapshotList(_Message, frozen=True, tag="snapshot_list"):
    """The answer to `AskSnapshots`; thread lane."""

    request: int
    rows: list[SnapshotRow]
    last_skipped: str = ""
    """Why the newest snapshot that was due was not taken; empty where it was."""


class RewindAnswer(_Message, frozen=True, tag="rewind_answer"):
    """The answer to `AskRewind`; thread lane. ``refused`` is empty where it will be done."""

    request: int
    refused: str
    to: str = ""
    """In words: where it will go, and what is undone."""


ToWorker = (
    Start
    | Run
    | ControlParent
    | InputReply
    | Interrupt
    | Ping
    | OpenSubshell
    | CloseSubshell
    | Stop
    | Receive
    | SnapshotList
    | RewindAnswer
)


# --- worker to broker (all on the output lane) ----------------------------------------------------


class Outcome(StrEnum):
    """How a job ended, as the reply's ``status`` says it."""

    ok = "ok"
    error = "error"


class StreamName(StrEnum):
    """The two standard streams."""

    stdout = "stdout"
    stderr = "stderr"


class Ready(_Message, frozen=True, tag="ready"):
    """The shell is there: requests can run."""

    pid: int
    banner: str
    ipython_version: str


class Failed(_Message, frozen=True, tag="failed"):
    """The worker cannot start; it ends right after this message."""

    reason: str
    traceback: str


class Publish(_Message, frozen=True, tag="publish"):
    """Send one message on iopub. ``job`` 0 with an empty ``parent_header`` has no parent."""

    job: int
    msg_type: str
    content: bytes
    metadata: bytes = b"{}"
    topic: bytes = b""
    """Empty: the broker names the topic after the message type."""
    parent_header: bytes = b""
    """Given when the job may have ended: the broker forgets a job with its reply."""
    buffers: list[Any] = []  # bytes-like; empty in the packed message


class Stream(_Message, frozen=True, tag="stream"):
    """Text that a cell wrote; the broker joins neighbours of one parent and name."""

    job: int
    name: StreamName
    text: str
    parent_header: bytes = b""


class Finished(_Message, frozen=True, tag="finished"):
    """A job has ended; ``content`` is its reply's. It ends a job, exactly once."""

    job: int
    outcome: Outcome
    content: bytes
    metadata: bytes = b"{}"
    stop_on_error: bool = False
    """Abort the execute requests queued behind this job (already false when the outcome is ok)."""
    buffers: list[Any] = []  # bytes-like; empty in the packed message
    counter: int = 0
    """The number that the next cell gets; 0 where none is known."""
    is_captured: bool = False
    """A frontend took outputs of this job into an ``Output`` widget."""
    took_next: bool = False
    """The worker has taken the job in the tray, and runs it next."""


class Caught(_Message, frozen=True, tag="caught"):
    """An interrupt has reached a job: its code has ended, its traceback is being made."""

    job: int


class InputRequest(_Message, frozen=True, tag="input_request"):
    """Ask the frontend of a job for a line of input; answered by one `InputReply`."""

    job: int
    request: int
    prompt: str
    password: bool


class Pong(_Message, frozen=True, tag="pong"):
    """The answer to a `Ping`, from the lane thread: other threads of the worker can run."""

    number: int
    main_steps: int
    """A counter that the main thread's event loop moves: unchanged means no progress."""


class SetConcurrencyMode(_Message, frozen=True, tag="set_concurrency_mode"):
    """`kernel.concurrency_mode` was assigned."""

    mode: KernelConcurrencyMode


class SetSettings(_Message, frozen=True, tag="set_settings"):
    """`%unstuck NAME VALUE` changed settings that the broker enforces."""

    settings: dict[str, Any]


class AskRestart(_Message, frozen=True, tag="ask_restart"):
    """`%restart`: restart this worker in place, after the reply of ``job`` where it runs."""

    job: int = 0


class AskExit(_Message, frozen=True, tag="ask_exit"):
    """`exit()` or `quit()` in a cell: end the kernel after the reply of ``job``."""

    keep_kernel: bool = False
    job: int = 0


class NewPipes(_Message, frozen=True, tag="new_pipes"):
    """From here on fd 1 and 2 are new pipes; their read ends come with this message (SCM_RIGHTS).

    The old pipes stay open for the child processes of ``job``, whose cell they belong to.
    """

    job: int
    parent_header: bytes


class Snapshotting(_Message, frozen=True, tag="snapshotting"):
    """The main thread forks now; a fork that does not come back in time is a hang."""

    number: int
    """Counts up, from the floor in `Start` or `Promote` on; never used twice in a broker's life."""
    name: str
    """Empty for one that nobody has asked for."""
    deadline_s: float


class Snapshotted(_Message, frozen=True, tag="snapshotted"):
    """The fork has come back in the worker; the copy itself says `CopyReady`."""

    number: int
    cost_s: float
    faults: int
    cell: int
    """The execution count of the last cell that has ended."""


class SnapshotSkipped(_Message, frozen=True, tag="snapshot_skipped"):
    """A snapshot that was due is not taken."""

    number: int
    name: str
    reason: str


class AskSnapshots(_Message, frozen=True, tag="ask_snapshots"):
    """`%snapshots`: answered by a `SnapshotList`."""

    request: int


class AskRewind(_Message, frozen=True, tag="ask_rewind"):
    """`%rewind`: after ``job``, go back to a snapshot; answered by a `RewindAnswer`."""

    request: int
    job: int
    to: str = ""
    """A name, a number, or empty: one cell back."""


class Received(_Message, frozen=True, tag="received"):
    """What came from a donor; `Ready` follows."""

    came: int
    failed: list[tuple[str, str]]
    """Name and reason."""
    size_bytes: int
    seconds: float


class TransplantProgress(_Message, frozen=True, tag="transplant_progress"):
    """How far a `Receive` that takes longer than a second has come."""

    done: int
    total: int
    name: str


ToBroker = (
    Ready
    | Failed
    | Publish
    | Stream
    | Finished
    | Caught
    | InputRequest
    | Pong
    | SetConcurrencyMode
    | SetSettings
    | AskRestart
    | AskExit
    | NewPipes
    | Snapshotting
    | Snapshotted
    | SnapshotSkipped
    | AskSnapshots
    | AskRewind
    | Received
    | TransplantProgress
)


# --- a dormant copy of the worker and the broker, on the copy's own connection --------------------


class CopyReady(_Message, frozen=True, tag="copy_ready"):
    """The first and only word of a dormant copy, and of its spare."""

    number: int
    """Of the `Snapshotting` that it comes from."""
    pid: int
    name: str
    cell: int
    kind: CopyKind
    reasons: list[str]
    """Why it is a donor: "polars' thread pool"."""
    lost: list[str]
    """What lives in the worker and not in the copy: threads by name, children, connections."""
    taken_at: float
    """Unix seconds."""
    history_session: int
    is_faithful: bool
    """Promotable, and nothing is lost."""
    private: list[tuple[int, int]] = []
    """Device and inode of what the worker has open and nobody else can want or wait for."""
    is_spare: bool = False
    """A copy of this number is there already; this one stays when that one becomes the worker."""


class Promote(_Message, frozen=True, tag="promote"):
    """Become the worker.

    Its descriptors come with the message (SCM_RIGHTS), for 1, 2, main lane, thread lane, output
    lane, sync page and stacks. `Ready` follows on the output lane.
    """

    job_floor: int
    """No job up to this number runs any more."""
    cell_floor: int
    """The execution count goes on after this number."""
    snapshot_floor: int
    """The numbers of snapshots go on after this."""
    settings: dict[str, Any]
    is_guarded: bool = False
    """Its spare stays: what this copy holds is not lost if it dies at once."""


class Donate(_Message, frozen=True, tag="donate"):
    """Listen on this abstract AF_UNIX stream address, serve one receiver, and end."""

    address: str
    deadline_s: float


ToCopy = Promote | Donate
FromCopy = CopyReady
