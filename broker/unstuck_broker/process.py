"""Workers as processes: how one is started, watched and killed with all that it started.

Imported before everything else of the broker, so that the worker loads while the broker does: it
imports only small parts of the standard library.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_FIRST_FD = 3
"""The worker's are 3 (main lane), 4 (thread lane), 5 (output lane), 6 (sync), 7 (stacks)."""
_HIGH_FD = 20
_PR_SET_CHILD_SUBREAPER = 36
SYNC_BYTES = 4096


class WorkerProcess:
    """A worker that was started, and the broker's ends of what connects the two.

    Attributes:
        pid: the process, also its session and process group.
        main_lane, thread_lane, output_lane: sockets, non-blocking.
        stdout_fd, stderr_fd: read ends of what C code and child processes write to fd 1 and 2.
        stack_fd: read end of the pipe that faulthandler writes stacks into.
        sync_fd: a page shared with the worker, see `unstuck_broker.pipes`.
        exit_status: as waitpid gives it, once the process has been reaped.
    """

    __slots__ = (
        "exit_status", "main_lane", "output_lane", "pid", "stack_fd", "stderr_fd", "stdout_fd",
        "sync_fd", "thread_lane",
    )  # fmt: skip

    def __init__(
        self, pid: int, lanes: Iterable[socket.socket], read_fds: Iterable[int], sync_fd: int
    ) -> None:
        """Own the lanes (main, thread, output), the read ends (1, 2, stacks) and the page."""
        self.pid = pid
        self.main_lane, self.thread_lane, self.output_lane = lanes
        self.stdout_fd, self.stderr_fd, self.stack_fd = read_fds
        self.sync_fd = sync_fd
        self.exit_status: int | None = None

    def reap(self) -> bool:
        """Collect the exit status without waiting; True once the process has ended."""
        if self.exit_status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if pid:
                self.exit_status = status
        return self.exit_status is not None

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it has not ended."""
        if self.exit_status is None:
            kill_all({self.pid}, number)

    def close(self) -> None:
        """Close the broker's ends, but for fd 1 and 2, which `unstuck_broker.pipes` owns."""
        for lane in (self.main_lane, self.thread_lane, self.output_lane):
            lane.close()
        for fd in (self.stack_fd, self.sync_fd):
            os.close(fd)


def become_subreaper() -> None:
    """Have orphans of the worker's tree become our children: none of them is lost (Linux)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - 5 ms, after the worker was started

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn_worker() -> WorkerProcess:
    """Start a worker in a session of its own; it waits for its ``Start`` message.

    Raises:
        OSError: no process or descriptor is to be had.
    """
    lanes = [socket.socketpair() for _ in range(3)]
    pipes = [os.pipe() for _ in range(3)]
    sync_fd = _shared_page()
    stdout, stderr, stack = pipes
    theirs = [lane[1].fileno() for lane in lanes] + [sync_fd, stack[1]]
    # Above all targets, so that no dup2 in the child closes the source of a later one.
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for fd in theirs]
    output = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for fd in (stdout[1], stderr[1])]
    fds = range(_FIRST_FD, _FIRST_FD + len(sources))
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output[0], 1),
        (os.POSIX_SPAWN_DUP2, output[1], 2),
        *((os.POSIX_SPAWN_DUP2, source, fd) for source, fd in zip(sources, fds, strict=True)),
    ]
    argv = [sys.executable, "-P", "-m", "unstuck_worker", *map(str, fds), str(os.getpid())]
    try:
        pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
    finally:
        for fd in (*sources, *output, stdout[1], stderr[1], stack[1]):
            os.close(fd)
        for lane in lanes:
            lane[1].close()
    for lane in lanes:
        lane[0].setblocking(False)
    read_fds = [pipe[0] for pipe in pipes]
    for fd in read_fds:
        os.set_blocking(fd, False)
    return WorkerProcess(pid, [lane[0] for lane in lanes], read_fds, sync_fd)


def _shared_page() -> int:
    """Make a page of memory that both processes map."""
    if sys.platform == "linux":
        fd = os.memfd_create("unstuck-sync", os.MFD_CLOEXEC)
    else:
        import tempfile  # noqa: PLC0415 - macOS has no memfd, and Linux need not load this

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, SYNC_BYTES)
    return fd


def watch_fd(pid: int) -> int | None:
    """Give a descriptor that is readable once the process has ended; None without pidfd."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def exit_facts(status: int) -> tuple[int | None, int | None]:
    """Split a wait status into exit code and signal number."""
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.waitstatus_to_exitcode(status), None


def kill_all(pids: set[int], number: int = signal.SIGKILL) -> None:
    """Send a signal to processes; those that have ended or are not ours are passed over."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
