"""The kernels that run on this machine, and how a person names one of them.

A kernel is found by its connection file: in Jupyter's runtime folder, or on the command line of its
process. Which notebook it belongs to is known by its server, else by its connection file.
"""

from __future__ import annotations

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from jupyter_core.paths import jupyter_runtime_dir

from unstuck.control import is_listening, read_connection
from unstuck.errors import ConfigError
from unstuck.servers import Session, find_sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_MAX_PROBES = 16
_FILE_OPTIONS = frozenset({"-f", "--f", "--connection-file"})
_SHORT_ID = 8
_START_S = 5.0
"""How long a kernel whose process is there may take until it listens."""
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningKernel:
    """A kernel that runs, or whose connection file says that it did."""

    kernel_id: str
    connection_file: Path
    connection: Mapping[str, Any]
    """What the connection file says, with the key: never shown."""
    listening: bool
    """Somebody listens at its control port."""
    pid: int | None = None
    """The process that was started with the connection file: for unstuck the broker."""
    notebook: Path | None = None
    session: Session | None = None

    @property
    def short_id(self) -> str:
        """The id as far as a person reads it."""
        return self.kernel_id[:_SHORT_ID]

    @property
    def runs(self) -> bool:
        """Tell whether it runs, or is just starting; else its connection file is stale."""
        return self.listening or self.pid is not None

    def describe(self) -> str:
        """Name it in a message."""
        return f"{self.short_id} ({self.notebook or self.connection_file})"


def find_kernels() -> list[RunningKernel]:
    """List the kernels of this user, stale connection files last."""
    runtime = Path(jupyter_runtime_dir())
    pids = _started_with_files()
    paths = dict.fromkeys([*pids, *sorted(map(_resolved, runtime.glob("*.json")))])
    connections = _read_all(paths)
    sessions = find_sessions(runtime)
    with ThreadPoolExecutor(_MAX_PROBES) as pool:
        listening = list(pool.map(is_listening, connections.values()))
    found = [
        _make(path, connection, sessions, pids.get(path), listening=listens)
        for (path, connection), listens in zip(connections.items(), listening, strict=True)
    ]
    return sorted(found, key=lambda kernel: (not kernel.runs, str(kernel.notebook or "~")))


def kernel_of_file(path: Path) -> RunningKernel:
    """Describe the kernel of one connection file.

    Raises:
        ConfigError: it is none.
    """
    path = _resolved(path)
    connection = read_connection(path)
    sessions = find_sessions(Path(jupyter_runtime_dir()))
    pid = _started_with_files().get(path)
    return _make(path, connection, sessions, pid, listening=is_listening(connection))


def choose(name: str) -> RunningKernel:
    """Find the one kernel that a person means: by id or its beginning, notebook or file.

    Raises:
        ConfigError: none, more than one, or one whose connection file is stale.
    """
    path = Path(name).expanduser()
    if path.suffix == ".json" and path.is_file():
        chosen = kernel_of_file(path)
    else:
        chosen = pick(name, find_kernels())
    end_s = time.monotonic() + (_START_S if chosen.pid is not None else 0.0)
    while not (chosen.listening or is_listening(chosen.connection)):
        if time.monotonic() >= end_s:
            raise ConfigError(
                f"{chosen.connection_file} is stale: nothing listens at its ports, the kernel has"
                " ended"
            )
        time.sleep(_LOOK_S)
    return replace(chosen, listening=True)


def pick(name: str, kernels: Sequence[RunningKernel]) -> RunningKernel:
    """Choose among kernels; those that run go before stale files, exact names before beginnings.

    Raises:
        ConfigError: none is meant, or more than one.
    """
    for fits in (_is_exactly, _begins):
        for runs in (True, False):
            meant = [k for k in kernels if k.runs is runs and fits(k, name)]
            if len(meant) == 1:
                return meant[0]
            if meant:
                raise ConfigError(f"{name!r} names {len(meant)} kernels: {_list(meant)}")
    running = [kernel for kernel in kernels if kernel.runs]
    there_are = f"there are {_list(running)}" if running else "no kernel runs"
    raise ConfigError(f"no kernel {name!r}: {there_are}")


def _list(kernels: Iterable[RunningKernel]) -> str:
    return ", ".join(kernel.describe() for kernel in kernels)


def _is_exactly(kernel: RunningKernel, name: str) -> bool:
    file = kernel.connection_file
    return name in (kernel.kernel_id, file.name, file.stem) or _is_notebook(kernel, name)


def _is_notebook(kernel: RunningKernel, name: str) -> bool:
    """Compare with the end of the notebook's path; its suffix may be left out."""
    if kernel.notebook is None or not name:
        return False
    named = Path(name).expanduser().parts
    whole = kernel.notebook.parts
    bare = kernel.notebook.with_suffix("").parts
    return bool(named) and named in (whole[-len(named) :], bare[-len(named) :])


def _begins(kernel: RunningKernel, name: str) -> bool:
    return bool(name) and kernel.kernel_id.startswith(name)


def _make(
    path: Path,
    connection: Mapping[str, Any],
    sessions: Mapping[str, Session],
    pid: int | None,
    *,
    listening: bool,
) -> RunningKernel:
    kernel_id = path.stem.removeprefix("kernel-")
    session = sessions.get(kernel_id)
    named = str(connection.get("jupyter_session") or "")
    return RunningKernel(
        kernel_id=kernel_id,
        connection_file=path,
        connection=connection,
        listening=listening,
        pid=pid,
        notebook=session.notebook if session else Path(named) if named else None,
        session=session,
    )


def _read_all(paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    found: dict[Path, dict[str, Any]] = {}
    for path in paths:
        try:
            found[path] = read_connection(path)
        except ConfigError:
            continue  # A server's file, another user's, or one that has just gone.
    return found


def _started_with_files() -> dict[Path, int]:
    """Find the processes that were started with a connection file; of several the oldest."""
    found: dict[Path, int] = {}
    table = psutil.process_iter(["cmdline", "create_time", "uids"])
    own = [p for p in table if p.info["cmdline"] and p.info["uids"].real == os.getuid()]
    for process in sorted(own, key=lambda p: p.info["create_time"] or 0.0):
        file = _file_option(process.info["cmdline"])
        if file is None:
            continue
        path = Path(file)
        if not path.is_absolute():
            try:
                path = Path(process.cwd(), file)
            except psutil.Error:
                continue
        found.setdefault(_resolved(path), process.pid)
    return found


def _file_option(command: Sequence[str]) -> str | None:
    """Read a kernel's ``-f FILE``; a client's command line may name the same file, but not so."""
    for word, after in itertools.pairwise([*command, ""]):
        option, equals, value = word.partition("=")
        if option in _FILE_OPTIONS:
            file = value if equals else after
            if file.endswith(".json"):
                return file
    return None


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path
