"""The template: a copy of a worker from before it ran user code, which forks new workers.

It is a process with one thread that has built the shell and done nothing else. It costs 5 MB, so a
kernel gets one with its first restart: whoever restarts once will do it again. Where there is none
(not yet, the settings have changed, something was installed, it died, the platform is not Linux), a
new worker is started from scratch.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys

from unstuck_broker.process import Ends, kill_all, spawn_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unstuck_broker.process import WorkerProcess

_PID = struct.Struct("!q")
_FORK_DEADLINE_S = 1.0


class Template:
    """The broker's end of the template.

    Threads: the broker's loop only.
    """

    def __init__(self) -> None:
        """Prepare for a template; there is none."""
        self._ours: socket.socket | None = None
        self.pid: int | None = None
        """Known once it has said that it is there."""
        self._settings: object = None
        """What its shell was built with."""

    def children(self) -> frozenset[int]:
        """Name the processes of ours that are no worker's."""
        self._listen()
        return frozenset() if self.pid is None else frozenset({self.pid})

    async def worker(self, settings: object) -> WorkerProcess:
        """Start a worker: a fork of the template, or one from scratch.

        Args:
            settings: what the worker's shell will be built with.

        Raises:
            OSError: no process or descriptor is to be had.
        """
        import asyncio  # noqa: PLC0415 - the first worker is started before it is loaded

        self._listen()
        if self.pid is not None and settings == self._settings:
            try:
                async with asyncio.timeout(_FORK_DEADLINE_S):
                    return await self._fork()
            except (TimeoutError, OSError):
                pass
        self.end()
        if sys.platform != "linux":
            return spawn_worker()
        self._settings = settings
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        with theirs:
            return spawn_worker(theirs.fileno())

    def end(self) -> None:
        """Kill the template; it has run no user code and has nothing to tidy up."""
        if self._ours is not None:
            self._ours.close()
            self._ours = None
        if self.pid is not None:
            kill_all({self.pid}, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None

    def _listen(self) -> None:
        """Take the first word of the template, its pid."""
        if self.pid is None and self._ours is not None:
            try:
                word = self._ours.recv(_PID.size)
            except OSError:
                return
            if len(word) == _PID.size:
                (self.pid,) = _PID.unpack(word)

    async def _fork(self) -> WorkerProcess:
        import asyncio  # noqa: PLC0415 - as above

        assert self._ours is not None
        ends = Ends()
        try:
            socket.send_fds(self._ours, [b"fork"], ends.worker_fds())
            word = await asyncio.get_running_loop().sock_recv(self._ours, _PID.size)
            if len(word) != _PID.size:
                raise OSError("the template has ended")
        except BaseException:
            ends.close()
            raise
        return ends.hand_over(_PID.unpack(word)[0])
