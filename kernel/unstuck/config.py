"""Every setting, with its unit, default and meaning; read once, at the start of a process.

``Config`` is the broker's, ``WorkerConfig`` the worker's share of it. Settings come from ``--set
NAME=VALUE`` on the kernel's command line, which ``unstuck install --set`` writes into the
kernelspec.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from unstuck.errors import ConfigError

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=0)]

InterruptPolicy = Literal["auto", "never", "always"]
SnapshotPolicy = Literal["off", "auto", "always"]


class WorkerConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the process that runs cells has to know."""

    hash_directive: bool = False
    """Take ``# task`` on a cell's first line for a directive, as ``##task`` is."""
    matplotlib_backend: str = "module://matplotlib_inline.backend_inline"
    """Set as MPLBACKEND where the user has not set one."""
    history: bool = True
    """Store the cells' history in IPython's database."""
    jedi: bool = True
    """Complete with Jedi beside IPython's own completer."""
    profile: str = "default"
    """The IPython profile whose configuration and start-up files are used."""
    ipython_arguments: list[str] = []
    """``--Class.trait=value`` for IPython's own configurables."""
    snapshots: SnapshotPolicy = "auto" if sys.platform == "linux" else "off"
    """Keep a copy of the variables, for a worker that dies: never, when it is cheap, each cell."""
    snapshot_share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    """What snapshots may cost of the time that cells take, in a run without pauses."""
    snapshot_memory_bytes: Bytes = 0
    """What all snapshots may cost; beyond it they are dropped. 0: a quarter of the memory."""
    autosave_file: str = ""
    """Save the variables to this checkpoint file while nothing runs; empty: never."""
    autosave_every_s: Annotated[float, Meta(ge=1)] = 300.0
    """How long after a save the next one may begin."""
    restore_file: str = ""
    """Load this checkpoint when the kernel starts; not when it restarts. Empty: none."""


class Config(WorkerConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings of a kernel."""

    # The interrupt ladder (docs/architecture.md).
    interrupt_policy: InterruptPolicy = "auto"
    """May an interrupt kill a worker that does not react: if asked twice, never, at the grace."""
    interrupt_hard_s: Seconds = 0.5
    """After an interrupt: when KeyboardInterrupt is raised asynchronously too."""
    interrupt_grace_s: Seconds = 2.0
    """After an interrupt: when the stack is shown, and by policy the worker is killed."""

    # Snapshots; the worker's part is above.
    snapshot_count: Count = 3
    """How many named snapshots are kept; the oldest is dropped first."""

    # Requests.
    introspection_deadline_s: Seconds = 10.0
    """How long a completion, inspection, is_complete or history request may wait for the worker."""
    cell_timeout_s: Seconds = 0.0
    """Wall time for one cell; 0 is no limit. A cell's own ``timeout`` goes first."""
    backlog_bytes: Bytes = 256 << 20
    """Requests that wait in the broker; beyond this shell is not read until some have run."""

    # Outputs.
    stream_flush_s: Annotated[float, Meta(ge=0, le=0.1)] = 0.02
    """How long stream text may wait to be joined with its neighbours."""
    stream_bytes: Annotated[int, Meta(ge=1)] = 64 << 10
    """A stream message is sent at this size."""
    output_bytes_per_cell: Bytes = 0
    """Output of one cell; what is beyond is cut, with a note that says how much. 0 is no limit."""
    iopub_stall_s: Seconds = 30.0
    """How long one subscriber that does not read may hold up the outputs for all."""
    subscription_wait_s: Annotated[float, Meta(ge=0, le=5)] = 0.5
    """How long the first replies wait for a subscriber on iopub."""

    # The worker's life.
    start_deadline_s: Seconds = 60.0
    """How long a worker may take until its shell is there."""
    shutdown_grace_s: Seconds = 5.0
    """How long atexit handlers and ``finally`` blocks may take at the end."""
    restart_in_place: bool = False
    """Take a shutdown request with ``restart`` for a restart in place; our provisioner sets it."""
    hang_report_s: Seconds = 10.0
    """After how long without progress a cell's stack is shown; 0 is never."""
    memory_bytes: Bytes = 0
    """Memory of the worker's process tree; 0 is no limit."""
    processes: Count = 0
    """Processes in the worker's tree; 0 is no limit."""


SETTINGS: frozenset[str] = frozenset(Config.__struct_fields__)


def parse_settings(pairs: list[str]) -> Config:
    """Read ``NAME=VALUE`` pairs; a value is converted to its setting's type.

    Raises:
        ConfigError: no ``=``, an unknown name, or a value that its setting does not take.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"setting {pair!r} has no value: write NAME=VALUE")
        if name not in SETTINGS:
            raise ConfigError(
                f"unknown setting {name!r}: it is one of {', '.join(sorted(SETTINGS))}"
            )
        if name == "ipython_arguments":
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    return make_config(values)


def make_config(values: dict[str, Any]) -> Config:
    """Build the configuration from values by name, as strings or of their own type.

    Raises:
        ConfigError: an unknown name, or a value that its setting does not take.
    """
    try:
        return msgspec.convert(values, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"bad setting: {error}") from None


def settings_of(config: Config) -> dict[str, Any]:
    """Give all settings by name, as they travel in ``Start``."""
    return {name: getattr(config, name) for name in Config.__struct_fields__}
