"""The template: a copy of a worker from before it ran user code, which forks new workers.

It is a process with one thread that has built the shell and done nothing else. It costs some MB, so
a kernel gets one with its first restart: whoever restarts once will do it again. Where there is
none (not yet, the settings have changed, something was installed, it died, the platform is not
Linux), a new worker is started from scratch.

While a worker runs, the template keeps a **spare**: the next worker, forked already, which waits
for its descriptors. The fork itself is a third of what a restart takes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time

from unstuck.templating import FORK, I_AM_SPARE, I_AM_TEMPLATE, I_AM_WORKER, SPARE, WORD
from unstuck_broker.process import Ends, kill_all, spawn_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unstuck_broker.process import WorkerProcess

_FORK_DEADLINE_S = 1.0


class Template:
    """The broker's end of the template.

    Threads: the broker's loop only.
    """

    def __init__(self) -> None:
        """Prepare for a template; there is none."""
        self._ours: socket.socket | None = None
        self._pids: dict[bytes, int] = {}
        """Of the template and its spare, once they have said that they are there."""
        self._ends: Ends | None = None
        """Of the worker that was ordered and has not answered; until then `_fork` listens."""
        self._spare_due_s: float | None = None
        """Until when a spare that was ordered may appear; None where none is expected."""
        self._settings: object = None
        """What its shell was built with."""

    @property
    def pid(self) -> int | None:
        """Name the template's process, if there is one."""
        self._listen()
        return self._pids.get(I_AM_TEMPLATE)

    def children(self) -> frozenset[int]:
        """Name the processes of ours that are no worker's."""
        self._listen()
        return frozenset(self._pids.values())

    @property
    def is_forking(self) -> bool:
        """Tell whether a child of ours may be there that has not named itself yet."""
        self._listen()
        return self._spare_due_s is not None and time.monotonic() < self._spare_due_s

    def prepare(self) -> None:
        """Have a spare ready for the next worker; call it when the present one is."""
        if self.pid is None or self._ours is None or I_AM_SPARE in self._pids or self.is_forking:
            return
        try:
            self._ours.send(SPARE)
        except OSError:
            return  # It has ended; `worker` goes on without.
        self._spare_due_s = time.monotonic() + _FORK_DEADLINE_S

    async def worker(self, settings: object) -> WorkerProcess:
        """Start a worker: a fork of the template, or one from scratch.

        Args:
            settings: what the worker's shell will be built with.

        Raises:
            OSError: no process or descriptor is to be had.
        """
        import asyncio  # noqa: PLC0415 - the first worker is started before it is loaded

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
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        with theirs:
            return spawn_worker(theirs.fileno())

    def end(self) -> None:
        """Kill the template and its spare; they have run no user code, and have nothing to tidy."""
        self._listen()
        if self._ours is not None:
            self._ours.close()
            self._ours = None
        for pid in self._pids.values():
            kill_all({pid}, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._pids.clear()
        self._spare_due_s = None

    def _listen(self) -> None:
        """Take in who has said that it is there."""
        while self._ours is not None and self._ends is None:
            try:
                word = self._ours.recv(WORD.size)
            except OSError:
                return
            if not self._note(word):
                return

    def _note(self, word: bytes) -> bool:
        """Note who is there; False at the template's end."""
        if len(word) != WORD.size:
            return False
        who, pid = WORD.unpack(word)
        if who != I_AM_WORKER:
            self._pids[who] = pid
            self._spare_due_s = None
        elif pid == self._pids.get(I_AM_SPARE):
            del self._pids[I_AM_SPARE]
        return True

    async def _fork(self) -> WorkerProcess:
        import asyncio  # noqa: PLC0415 - as above

        assert self._ours is not None
        loop = asyncio.get_running_loop()
        self._ends = ends = Ends()
        try:
            socket.send_fds(self._ours, [FORK], ends.worker_fds())
            while True:
                word = await loop.sock_recv(self._ours, WORD.size)
                if not self._note(word):
                    raise OSError("the template has ended")
                who, pid = WORD.unpack(word)
                if who == I_AM_WORKER:
                    return ends.hand_over(pid)
        except BaseException:
            ends.close()
            raise
        finally:
            self._ends = None
