"""The broker's side of dormant copies, for tests: it collects, promotes and kills them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import psutil

from unstuck.codec import Decoder, encode
from unstuck.protocol import (
    CopyReady,
    Donate,
    FromCopy,
    Promote,
    Ready,
    SnapshotSkipped,
    Snapshotted,
    StreamName,
    ToBroker,
)
from unstuck.typing import RunMode
from worker.broker_double import DEADLINE_S, Outputs, Pipe, WorkerDouble

if TYPE_CHECKING:
    from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
READ_BYTES = 1 << 18


@dataclass
class Copy:
    """One dormant copy."""

    ready: CopyReady
    connection: socket.socket

    def send(self, message: Promote | Donate, fds: list[int]) -> None:
        data = b"".join(encode(message))
        if fds:
            assert socket.send_fds(self.connection, [data], fds) == len(data)
        else:
            self.connection.sendall(data)


class CopyProcess:
    """A promoted copy, as `subprocess.Popen` shows a process: it is our child as well."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"copy {self.pid}", timeout)
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class SnapshotDouble(WorkerDouble):
    """The broker's side of one worker and its copies."""

    listening: socket.socket
    copies: list[Copy]

    @classmethod
    def start(cls, cwd: Path, **settings: Any) -> Self:  # noqa: ANN401
        """Start a worker whose copies come to us."""
        # The copies are orphans of the worker: they become our children.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        listening = socket.socket(socket.AF_UNIX)
        address = uuid.uuid4().hex
        listening.bind(f"\0{address}")
        listening.listen(8)
        worker = super().start(cwd, copies_address=address, **settings)
        worker.listening = listening
        worker.copies = []
        return worker

    # --- copies -----------------------------------------------------------------------------------

    def collect(self) -> None:
        """Take in the copies that have come, without waiting."""
        self.listening.setblocking(False)
        while True:
            try:
                connection, _ = self.listening.accept()
            except BlockingIOError:
                return
            connection.settimeout(DEADLINE_S)
            decoder: Decoder[FromCopy] = Decoder(FromCopy)
            messages: list[CopyReady] = []
            while not messages:
                data = connection.recv(READ_BYTES)
                assert data, "the copy is gone"
                messages = decoder.feed(data)
            self.copies.append(Copy(messages[0], connection))

    def last(self) -> int:
        """Give the number of the newest copy."""
        self.collect()
        return max((copy.ready.number for copy in self.copies), default=0)

    def wait_for_copy(self, number: int | None = None) -> Copy:
        """Wait for the next copy, or for the one with this number."""
        wanted = self.last() + 1 if number is None else number

        def is_there() -> bool:
            return self.last() >= wanted

        self.wait_for(is_there)
        return next(copy for copy in self.copies if copy.ready.number >= wanted)

    def snapshot(self, name: str = "wanted") -> Copy:
        """Have one taken after a cell that does nothing else."""
        self.collect()
        seen = len(self.skipped)
        self.run(f"get_ipython().kernel.snapshots.request({name!r})")

        def is_over() -> bool:
            self.collect()
            return any(copy.ready.name == name for copy in self.copies) or len(self.skipped) > seen

        self.wait_for(is_over)
        assert len(self.skipped) == seen, self.skipped[-1]
        return next(copy for copy in reversed(self.copies) if copy.ready.name == name)

    @property
    def skipped(self) -> list[str]:
        return [message.reason for message in self.all if isinstance(message, SnapshotSkipped)]

    @property
    def taken(self) -> list[Snapshotted]:
        return [message for message in self.all if isinstance(message, Snapshotted)]

    # --- recovery ---------------------------------------------------------------------------------

    def kill(self) -> None:
        """Kill the worker with everything that it has started."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        os.kill(self.process.pid, signal.SIGKILL)
        for child in children:
            child.kill()
        self.process.wait(DEADLINE_S)
        self._drain()

    def _drain(self) -> None:
        """Read what the dead worker had written."""
        while not self.is_closed:
            self.pump(0.05)

    def promote(
        self,
        copy: Copy | None = None,
        *,
        cell_floor: int = 0,
        waiting: str = "",
        is_guarded: bool = False,
    ) -> float:
        """Make a copy the worker, which is dead; give how long it took in seconds.

        ``waiting`` is a ``##thread`` cell that is in the thread lane before the copy can read it.
        """
        chosen = copy or self.copies[-1]
        began_s = time.monotonic()
        theirs = self._renew_ends()
        if waiting:
            self.submit(waiting, mode=RunMode.thread)
        floor = Promote(self._job, cell_floor, self.last(), {}, is_guarded)
        chosen.send(floor, theirs)
        for fd in theirs:
            os.close(fd)
        self.copies.remove(chosen)
        self.process = CopyProcess(chosen.ready.pid)  # type: ignore[assignment]
        self.all.clear()
        self.wait_for(lambda: self.find(Ready))
        chosen.connection.close()
        return time.monotonic() - began_s

    def _renew_ends(self) -> list[int]:
        for sock in (self.main, self.thread, self.output, *self.tray):
            sock.close()
        for fd in (*self.pipes, self.stack, self.page):
            os.close(fd)
        pairs = [socket.socketpair() for _ in range(3)]
        out, err, stack = os.pipe(), os.pipe(), os.pipe()
        self.page = os.memfd_create("sync", 0)
        os.ftruncate(self.page, 4096)
        self.main, self.thread, self.output = (pair[0] for pair in pairs)
        self.pipes = {out[0]: Pipe(StreamName.stdout), err[0]: Pipe(StreamName.stderr)}
        self.stack = stack[0]
        self._decoder = Decoder(ToBroker)
        self.is_closed = False
        self.tray = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        lanes = [pair[1].detach() for pair in pairs]
        return [out[1], err[1], *lanes, os.dup(self.page), stack[1], os.dup(self.tray[1].fileno())]

    def recover(self, copy: Copy | None = None, *, cell_floor: int = 0) -> float:
        """Kill the worker and promote a copy."""
        self.collect()
        self.kill()
        return self.promote(copy, cell_floor=cell_floor)

    def run_after(self, code: str) -> Outputs:
        """Run a cell that must succeed."""
        outputs = self.run(code)
        assert outputs.reply["status"] == "ok", outputs.reply
        return outputs

    def close(self) -> None:
        """End the worker and all copies."""
        super().close()
        self.collect()
        self.listening.close()
        for copy in self.copies:
            copy.connection.close()
        end = time.monotonic() + DEADLINE_S
        for copy in self.copies:
            while os.waitpid(copy.ready.pid, os.WNOHANG)[0] == 0:
                assert time.monotonic() < end, f"copy {copy.ready.pid} does not end"
                time.sleep(0.002)


def values(worker: SnapshotDouble, expression: str) -> object:
    """Evaluate in the worker; what comes back is JSON."""
    found = worker.run_after(f"import json as _json; print(_json.dumps({expression}))").text()
    return json.loads(found)
