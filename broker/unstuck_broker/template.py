"""The template: a copy of a worker from before it ran user code, which forks new workers.

It is a process with one thread that has built the shell and done nothing else. Each worker that is
started from scratch leaves one. It costs some MB, so that of the first worker is on trial: see
`unstuck_broker.trial`. Where there is none (it was not kept, the settings have changed, something
was installed, it died, the platform is not Linux), a new worker is started from scratch.

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

from unstuck.templating import FORK, I_AM_SPARE, I_AM_TEMPLATE, I_AM_WORKER, LEAVE, SPARE, WORD
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
        self._due_s: dict[bytes, float] = {}
        """Until when who was ordered may appear."""
        self._settings: object = None
        """What its shell was built with."""
        self._is_on_trial = False
        """It is the first worker's, and neither kept nor dropped."""

    def first_worker(self) -> WorkerProcess:
        """Start the first worker, in the way that costs least here; `leave` is still to be called.

        Raises:
            OSError: no process or descriptor is to be had.
        """
        if sys.platform != "linux":
            return spawn_worker()
        from unstuck_broker.twin import fork_worker  # noqa: PLC0415 - Linux only

        self._is_on_trial = True
        self._ours, theirs = _socket_pair()
        return fork_worker(self._ours, theirs)

    def leave(self, settings: object) -> None:
        """Let the first worker leave its template; orphans must be our children by now.

        Args:
            settings: what its shell is built with.
        """
        if self._is_on_trial:
            self._settings = settings
            self._order(LEAVE, I_AM_TEMPLATE)

    def settle(self, is_kept: bool) -> None:
        """Keep the first worker's template, or end it; where it is not there yet, it never is."""
        was_on_trial, self._is_on_trial = self._is_on_trial, False
        if is_kept:
            self.prepare()
        elif was_on_trial:
            self.end()

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
        now = time.monotonic()
        return any(now < due_s for due_s in self._due_s.values())

    def prepare(self) -> None:
        """Have a spare ready for the next worker; call it when the present one is.

        A template that has not named itself yet takes the order when it has.
        """
        self._listen()
        is_coming = time.monotonic() < self._due_s.get(I_AM_SPARE, 0.0)
        if not (self._is_on_trial or I_AM_SPARE in self._pids or is_coming):
            self._order(SPARE, I_AM_SPARE)

    async def worker(self, settings: object) -> WorkerProcess:
        """Start a worker: a fork of the template, or one from scratch.

        Args:
            settings: what the worker's shell will be built with.

        Raises:
            OSError: no process or descriptor is to be had.
        """
        import asyncio  # noqa: PLC0415 - the first worker is started before it is loaded

        self._is_on_trial = False
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
        self._ours, theirs = _socket_pair()
        with theirs:
            self._order(LEAVE, I_AM_TEMPLATE)
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
        self._due_s.clear()

    def _order(self, word: bytes, who: bytes) -> None:
        """Order a fork that will say who it is, if there is somebody to take the order."""
        if self._ours is None:
            return
        try:
            self._ours.send(word)
        except OSError:
            return  # It has ended; `worker` goes on without.
        self._due_s[who] = time.monotonic() + _FORK_DEADLINE_S

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
            self._due_s.pop(who, None)
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


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Make what the broker and a template talk on: the broker's end, which never waits, and its."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs
