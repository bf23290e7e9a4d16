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
    from collections.abc import Collection, Iterable

_FIRST_FD = 3
"""The worker's: 3 main lane, 4 thread, 5 output, 6 sync, 7 stacks, 8 tray, 9 template."""
_HIGH_FD = 20
_PR_SET_CHILD_SUBREAPER = 36
SYNC_BYTES = 4096


class WorkerProcess:
    """A worker that was started, and the broker's ends of what connects the two.

    Attributes:
        pid: the process, also its session and process group.
        main_lane, thread_lane, output_lane: sockets, non-blocking.
        tray: a pair of sockets, non-blocking: what is put into the first is taken out of the second
            by the worker, or taken back by us.
        stdout_fd, stderr_fd: read ends of what C code and child processes write to fd 1 and 2.
        stack_fd: read end of the pipe that faulthandler writes stacks into.
        sync_fd: a page shared with the worker, see `unstuck_broker.pipes`.
        exit_status: as waitpid gives it, once the process has been reaped, or is about to end.
    """

    __slots__ = (
        "exit_status", "main_lane", "output_lane", "pid", "stack_fd", "stderr_fd", "stdout_fd",
        "sync_fd", "thread_lane", "tray",
    )  # fmt: skip

    def __init__(
        self,
        pid: int,
        lanes: Iterable[socket.socket],
        read_fds: Iterable[int],
        sync_fd: int,
        tray: tuple[socket.socket, socket.socket],
    ) -> None:
        """Own the lanes (main, thread, output), the read ends (1, 2, stacks), page and tray."""
        self.pid = pid
        self.tray = tray
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
            # One that has asked to be traced (``PTRACE_TRACEME``) reports its stops here, too.
            if pid and not os.WIFSTOPPED(status):
                self.exit_status = status
        return self.exit_status is not None

    def is_dying(self, private: Collection[tuple[int, int]]) -> bool:
        """Tell whether it runs no more, though it cannot be reaped yet; see `deathwatch`."""
        if self.exit_status is None:
            from unstuck_broker.deathwatch import exit_status  # noqa: PLC0415 - not at the start

            self.exit_status = exit_status(self.pid, private)
        return self.exit_status is not None

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it has not ended."""
        if self.exit_status is None:
            kill_all({self.pid}, number)

    def close(self) -> None:
        """Close the broker's ends, but for fd 1 and 2, which `unstuck_broker.pipes` owns."""
        for lane in (self.main_lane, self.thread_lane, self.output_lane, *self.tray):
            lane.close()
        for fd in (self.stack_fd, self.sync_fd):
            os.close(fd)


def become_subreaper() -> None:
    """Have orphans of the worker's tree become our children: none of them is lost (Linux)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - nobody shall wait for it at the start

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Ends:
    """What connects a worker and the broker, before there is a worker: both ends."""

    def __init__(self) -> None:
        """Make lanes, pipes and the shared page.

        Raises:
            OSError: no descriptor is to be had.
        """
        self._lanes = [socket.socketpair() for _ in range(3)]
        self._pipes = [os.pipe() for _ in range(3)]
        self._sync_fd = _shared_page()
        # Whole messages: whoever reads one, the worker or the broker, has it alone.
        self._tray = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def worker_fds(self) -> list[int]:
        """Give the worker's ends, in the order of its descriptors from 1 on; ours to close."""
        stdout, stderr, stack = (pipe[1] for pipe in self._pipes)
        lanes = [lane[1].fileno() for lane in self._lanes]
        return [stdout, stderr, *lanes, self._sync_fd, stack, self._tray[1].fileno()]

    def placed(self, template_fd: int | None = None) -> tuple[list[int], list[int]]:
        """Give copies of the worker's ends, and the descriptors that they shall have in the worker.

        The copies lie above all targets: no ``dup2`` closes the source of a later one.
        """
        given = self.worker_fds() + ([] if template_fd is None else [template_fd])
        sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for fd in given]
        return sources, [1, 2, *range(_FIRST_FD, _FIRST_FD + len(sources) - 2)]

    def close(self) -> None:
        """Close all ends: there will be no worker."""
        for pipe in self._pipes:
            os.close(pipe[0])
            os.close(pipe[1])
        for pair in (*self._lanes, self._tray):
            pair[0].close()
            pair[1].close()
        os.close(self._sync_fd)

    def forget(self) -> None:
        """Close nothing, also not when this is freed: the numbers are other descriptors' now."""
        for pair in (*self._lanes, self._tray):
            for sock in pair:
                sock.detach()

    def hand_over(self, pid: int) -> WorkerProcess:
        """Close the worker's ends, which it has; give the broker's with the process."""
        for _, write_fd in self._pipes:
            os.close(write_fd)
        for lane in self._lanes:
            lane[1].close()
            lane[0].setblocking(False)
        for sock in self._tray:
            sock.setblocking(False)
        for read_fd, _ in self._pipes:
            os.set_blocking(read_fd, False)
        lanes = [lane[0] for lane in self._lanes]
        read_fds = [pipe[0] for pipe in self._pipes]
        return WorkerProcess(pid, lanes, read_fds, self._sync_fd, self._tray)


def worker_arguments(targets: list[int], broker: int) -> list[str]:
    """Give the command line of ``unstuck_worker`` for descriptors in the order of `Ends`."""
    main, thread, output, sync, *rest = map(str, targets[2:])
    return [main, thread, output, sync, str(broker), *rest]


def spawn_worker(template_fd: int | None = None) -> WorkerProcess:
    """Start a worker in a session of its own; it waits for its ``Start`` message.

    Args:
        template_fd: the worker leaves a template of itself behind that listens here.

    Raises:
        OSError: no process or descriptor is to be had.
    """
    ends = Ends()
    sources, targets = ends.placed(template_fd)
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        *((os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(sources, targets, strict=True)),
    ]
    argv = [sys.executable, "-P", "-m", "unstuck_worker", *worker_arguments(targets, os.getpid())]
    try:
        pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
    finally:
        for fd in sources:
            os.close(fd)
    return ends.hand_over(pid)


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
