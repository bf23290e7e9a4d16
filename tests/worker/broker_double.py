"""A broker for tests: starts a real worker process and speaks its lanes, without ZMQ."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from unstuck.codec import Decoder, encode
from unstuck.config import Config, settings_of
from unstuck.protocol import (
    Failed,
    Finished,
    InputReply,
    InputRequest,
    Interrupt,
    NewPipes,
    Ping,
    Pong,
    Publish,
    Ready,
    Run,
    Start,
    Stop,
    Stream,
    StreamName,
    ToBroker,
    ToWorker,
)
from unstuck.stack import STACK_SIGNAL
from unstuck.typing import MsgType, RunMode, SocketID

if TYPE_CHECKING:
    from collections.abc import Callable


def make_header(job: int, kind: MsgType) -> dict[str, str]:
    """Give the header of a request."""
    header = {"msg_id": f"msg-{job}", "session": "client", "username": "me", "date": ""}
    return {**header, "msg_type": kind.value, "version": "5.4"}


ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0


@dataclass
class Outputs:
    """What one job sent."""

    messages: list[ToBroker] = field(default_factory=list)
    finished: Finished | None = None

    @property
    def reply(self) -> dict[str, Any]:
        assert self.finished is not None
        return msgspec.json.decode(self.finished.content)  # type: ignore[no-any-return]

    @property
    def metadata(self) -> dict[str, Any]:
        assert self.finished is not None
        return msgspec.json.decode(self.finished.metadata)  # type: ignore[no-any-return]

    def text(self, name: StreamName = StreamName.stdout) -> str:
        return "".join(m.text for m in self.messages if isinstance(m, Stream) and m.name is name)

    def published(self, msg_type: str) -> list[dict[str, Any]]:
        return [
            msgspec.json.decode(m.content)
            for m in self.messages
            if isinstance(m, Publish) and m.msg_type == msg_type
        ]

    @property
    def result(self) -> str:
        (content,) = self.published("execute_result")
        return str(content["data"]["text/plain"])


@dataclass(eq=False)
class Pipe:
    """A pipe behind descriptor 1 or 2, of the running cell or of one that has ended."""

    name: StreamName
    job: int = 0


class WorkerDouble:
    """The broker's side of one worker."""

    def __init__(self, process: subprocess.Popen[bytes], **ends: Any) -> None:  # noqa: ANN401
        self.process = process
        self.main: socket.socket = ends["main"]
        self.thread: socket.socket = ends["thread"]
        self.output: socket.socket = ends["output"]
        self.pipes: dict[int, Pipe] = {fd: Pipe(name) for fd, name in ends["pipes"].items()}
        self.current = [*self.pipes.values()]
        self.generation = 0
        self.reads = [0, 0]
        self.stack: int = ends["stack"]
        self.page: int = ends["page"]
        self.tray: tuple[socket.socket, socket.socket] = ends["tray"]
        self.piped: dict[StreamName, str] = dict.fromkeys(StreamName, "")
        self.all: list[ToBroker] = []
        self.jobs: dict[int, Outputs] = {}
        self.requests: list[InputRequest] = []
        self.pongs: list[Pong] = []
        self.passed: list[int] = []
        self.is_closed = False
        self._decoder: Decoder[ToBroker] = Decoder(ToBroker)
        self._job = 0
        self._lent: deque[int] = deque()
        self.running = 0
        """The job whose text the pipes hold: the one that was sent or taken last."""

    @classmethod
    def start(
        cls,
        cwd: Path,
        *,
        env: dict[str, str] | None = None,
        first_on_path: Path | None = None,
        copies_address: str = "",
        **settings: Any,  # noqa: ANN401
    ) -> Self:
        pairs = [socket.socketpair() for _ in range(3)]
        out, err, stack = os.pipe(), os.pipe(), os.pipe()
        page = os.memfd_create("sync", 0)
        os.ftruncate(page, 4096)
        tray = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs = [pair[1].fileno() for pair in pairs] + [page]
        arguments = [str(fd) for fd in [*theirs, os.getpid(), stack[1], tray[1].fileno()]]
        folders = [ROOT / part for part in ("kernel", "broker", "worker")]
        path = os.pathsep.join(map(str, [*filter(None, [first_on_path]), *folders]))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "unstuck_worker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out[1],
            stderr=err[1],
            pass_fds=[*theirs, stack[1], tray[1].fileno()],
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
        )
        for pair in pairs:
            pair[1].close()
        for end in (out[1], err[1], stack[1]):
            os.close(end)
        main, thread, output = (pair[0] for pair in pairs)
        worker = cls(
            process,
            main=main,
            thread=thread,
            output=output,
            pipes={out[0]: StreamName.stdout, err[0]: StreamName.stderr},
            stack=stack[0],
            page=page,
            tray=tray,
        )
        config = Config(**settings)
        start = Start("session", "", settings_of(config), copies_address=copies_address)
        worker.send_main(start)
        worker.wait_for(lambda: worker.find(Ready) or worker.find(Failed))
        failed = worker.find(Failed)
        if failed is not None:
            worker.close()
        assert failed is None, failed
        return worker

    def find(self, kind: type[Any]) -> Any:  # noqa: ANN401
        return next((message for message in self.all if isinstance(message, kind)), None)

    def send_main(self, message: ToWorker) -> None:
        self._send(self.main, message)

    def send_thread(self, message: ToWorker) -> None:
        self._send(self.thread, message)

    def _send(self, sock: socket.socket, message: ToWorker) -> None:
        """Send, and read meanwhile: a worker that waits for its reader takes nothing in."""
        rest = memoryview(b"".join(encode(message)))
        while rest:
            if select.select([], [sock], [], 0)[1]:
                rest = rest[sock.send(rest) :]
            else:
                self.pump(0.001)

    # --- reading ----------------------------------------------------------------------------------

    def pump(self, timeout_s: float = 0.05) -> None:
        """Read what there is, waiting for so long at most."""
        sources = [*self.pipes] + ([] if self.is_closed else [self.output.fileno()])
        ready, _, _ = select.select(sources, [], [], timeout_s)
        if self.output.fileno() in ready:
            self._read_output()
        for fd in ready:
            if fd in self.pipes:
                self._read_pipe(fd)

    def _read_output(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self.output, 1 << 18, 4)
        except ConnectionResetError:
            data, fds = b"", []
        self.passed += fds
        if not data:
            self.is_closed = True
        for message in self._decoder.feed(data):
            self._take(message)

    def _read_pipe(self, fd: int) -> None:
        # What the lane holds by now was written before what this pipe holds.
        while not self.is_closed and select.select([self.output], [], [], 0)[0]:
            self._read_output()
        pipe = self.pipes[fd]
        # As the broker does: counted before the read, and when the text is on its way.
        self._count(pipe)
        data = os.read(fd, 1 << 18)
        text = data.decode(errors="replace")
        self.piped[pipe.name] += text
        if data:
            stream = Stream(pipe.job, pipe.name, text)
            self.all.append(stream)
            job = pipe.job or self.running
            self.jobs.setdefault(job, Outputs()).messages.append(stream)
        else:
            os.close(fd)
            del self.pipes[fd]
        self._count(pipe)

    def _count(self, pipe: Pipe) -> None:
        if pipe in self.current:
            self.reads[self.current.index(pipe)] += 1
            self._share_counts()

    def _share_counts(self) -> None:
        os.pwrite(self.page, struct.pack("=QQQ", self.generation, *self.reads), 0)

    def _change_pipes(self, message: NewPipes) -> None:
        """Give the pipes so far to their job, and read the new ones for the next."""
        for pipe in self.pipes.values():
            pipe.job = pipe.job or message.job
        self.current = [Pipe(StreamName.stdout), Pipe(StreamName.stderr)]
        for pipe in self.current:
            self.pipes[self.passed.pop(0)] = pipe
        self.generation += 1
        self.reads = [0, 0]
        self._share_counts()

    def _take(self, message: ToBroker) -> None:
        self.all.append(message)
        match message:
            case Publish() | Stream():
                self.jobs.setdefault(message.job, Outputs()).messages.append(message)
            case Finished():
                if message.took_next:
                    self.running = self._lent.popleft()
                self.jobs.setdefault(message.job, Outputs()).finished = message
            case InputRequest():
                self.requests.append(message)
            case Pong():
                self.pongs.append(message)
            case NewPipes():
                self._change_pipes(message)
            case _:
                pass

    def wait_for(self, fact: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        """Read until a fact holds."""
        end = time.monotonic() + deadline_s
        while not fact():
            left = end - time.monotonic()
            assert left > 0, f"not within {deadline_s} s: {self.describe()}"
            if self.is_closed and not self.pipes:
                self.process.wait(left)
                assert fact(), self.describe()
            self.pump(min(left, 0.05))

    def describe(self) -> str:
        """Say what the worker is at: its stacks, and what it wrote past the lanes."""
        piped = self.piped[StreamName.stderr]
        if self.process.poll() is not None:
            return f"ended with {self.process.returncode}; stderr: {piped}"
        self.process.send_signal(STACK_SIGNAL)
        stacks = b""
        while select.select([self.stack], [], [], 1.0)[0]:
            data = os.read(self.stack, 1 << 16)
            if not data:
                break
            stacks += data
        return f"stderr: {piped}\nstacks:\n{stacks.decode()}"

    # --- requests ---------------------------------------------------------------------------------

    def request(
        self,
        kind: MsgType,
        content: dict[str, Any],
        *,
        mode: RunMode = RunMode.queue,
        metadata: dict[str, Any] | None = None,
        thread: bool = False,
        subshell: str | None = None,
        buffers: list[bytes] | None = None,
    ) -> int:
        """Send a request; give its job number."""
        run = self._make_run(
            kind, content, mode=mode, metadata=metadata, subshell=subshell, buffers=buffers
        )
        self.running = run.job
        if thread or mode in (RunMode.thread, RunMode.process) or subshell is not None:
            self.send_thread(run)
        else:
            self.send_main(run)
        return run.job

    def lend(self, code: str) -> int:
        """Put a cell into the tray."""
        run = self._make_run(MsgType.execute_request, {"code": code})
        self.tray[0].send(b"".join(encode(run)))
        self._lent.append(run.job)
        return run.job

    def take_back(self) -> bool:
        """Empty the tray; False when nothing lies there."""
        try:
            self.tray[1].recv(1, socket.MSG_DONTWAIT)
            self._lent.popleft()
        except BlockingIOError:
            return False
        return True

    def _make_run(
        self,
        kind: MsgType,
        content: dict[str, Any],
        *,
        mode: RunMode = RunMode.queue,
        metadata: dict[str, Any] | None = None,
        subshell: str | None = None,
        buffers: list[bytes] | None = None,
    ) -> Run:
        self._job += 1
        job = self._job
        self.jobs[job] = Outputs()
        return Run(
            job=job,
            kind=kind,
            mode=mode,
            channel=SocketID.shell,
            header=msgspec.json.encode(make_header(job, kind)),
            parent_header=b"{}",
            metadata=msgspec.json.encode(metadata or {}),
            content=msgspec.json.encode(content),
            idents=[b"client"],
            received_s=time.monotonic(),
            subshell=subshell,
            buffers=buffers or [],
        )

    def submit(
        self,
        code: str,
        *,
        mode: RunMode = RunMode.queue,
        metadata: dict[str, Any] | None = None,
        subshell: str | None = None,
        **content: Any,  # noqa: ANN401
    ) -> int:
        """Send an execute request."""
        full = {"code": code, "silent": False, "allow_stdin": True, **content}
        return self.request(
            MsgType.execute_request, full, mode=mode, metadata=metadata, subshell=subshell
        )

    def submit_quietly(self, code: str) -> None:
        """Send a cell to a worker that may be gone."""
        try:
            self.submit(code)
        except OSError:
            return

    def wait(self, job: int, deadline_s: float = DEADLINE_S) -> Outputs:
        """Wait for a job's end; give what it sent."""
        outputs = self.jobs[job]
        self.wait_for(lambda: outputs.finished is not None, deadline_s)
        return outputs

    def run(self, code: str, **options: Any) -> Outputs:  # noqa: ANN401
        """Run a cell to its end."""
        return self.wait(self.submit(code, **options))

    def answer(self, value: str | None) -> None:
        self.send_thread(InputReply(self.requests.pop(0).request, value))

    def ping(self) -> Pong:
        before = len(self.pongs)
        self.send_thread(Ping(before + 1))
        self.wait_for(lambda: len(self.pongs) > before)
        return self.pongs[-1]

    def signal(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def interrupt(self, *jobs: int, hard: bool = False) -> None:
        self.send_thread(Interrupt(list(jobs), hard))

    def stop(self, grace_s: float = 5.0) -> int:
        """Ask for the end and wait for it."""
        self.send_thread(Stop(grace_s))
        self.wait_for(lambda: self.process.poll() is not None)
        return int(self.process.returncode)

    def close(self) -> None:
        """End the worker however it is, and all that it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        for sock in (self.main, self.thread, self.output, *self.tray):
            sock.close()
        for fd in (*self.pipes, self.stack, self.page, *self.passed):
            os.close(fd)
