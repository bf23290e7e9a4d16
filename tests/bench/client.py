"""A client that costs little, so that what is measured is the kernel.

Threads: one.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import secrets
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import zmq

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.peers import Peer

DEADLINE_S = 60.0
DELIMITER = b"<IDS|MSG>"
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


@dataclass
class Heard:
    """What came back for some requests."""

    waiting: set[str]
    """What is still to come: message ids, with ``+reply`` or ``+idle``."""
    characters: int = 0
    buffer_bytes: int = 0
    content: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of the last reply."""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [server.getsockname()[1] for server in servers]


class Client:
    """One kernel process and one client of it."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        """Start the kernel; its connection file and its log are put into ``folder``."""
        self.name = peer.name
        self._key = secrets.token_hex(16).encode()
        self._session = secrets.token_hex(8)
        self._numbers = itertools.count()
        ports: dict[str, int] = dict(zip(CHANNELS, _free_ports(len(CHANNELS)), strict=True))
        connection = {
            **{f"{channel}_port": port for channel, port in ports.items()},
            "ip": "127.0.0.1",
            "key": self._key.decode(),
            "transport": "tcp",
            "signature_scheme": "hmac-sha256",
            "kernel_name": peer.name,
        }
        file = folder / f"{peer.name}-{self._session}.json"
        file.write_text(json.dumps(connection))
        file.chmod(0o600)
        self._ports = ports
        self._context = zmq.Context()
        self.shell = self._connect(zmq.DEALER, "shell")
        self.iopub = self.subscribe(0)
        self._poller = zmq.Poller()
        self._poller.register(self.shell, zmq.POLLIN)
        self._poller.register(self.iopub, zmq.POLLIN)
        argv = [word.replace("{connection_file}", str(file)) for word in peer.argv]
        self.started_s = time.perf_counter()
        with (folder / f"{peer.name}-{self._session}.log").open("wb") as log:
            self.process = subprocess.Popen(
                argv, stdout=log, stderr=log, cwd=folder, env={**os.environ, **peer.env}
            )

    def _connect(self, kind: int, channel: str) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        made.linger = 0
        made.reconnect_ivl = 2  # The kernel binds later: do not round a launch up to 100 ms.
        made.rcvhwm = 0
        made.sndhwm = 0
        if kind == zmq.SUB:
            made.subscribe(b"")
        made.connect(f"tcp://127.0.0.1:{self._ports[channel]}")
        return made

    def subscribe(self, high_water_mark: int) -> zmq.Socket[bytes]:
        """Subscribe to iopub once more, with this high-water mark."""
        made = self._context.socket(zmq.SUB)
        made.linger = 0
        made.reconnect_ivl = 2
        made.rcvhwm = high_water_mark
        made.subscribe(b"")
        made.connect(f"tcp://127.0.0.1:{self._ports['iopub']}")
        return made

    def send(
        self,
        kind: str,
        content: dict[str, Any],
        buffers: Sequence[bytes] = (),
        *,
        channel: zmq.Socket[bytes] | None = None,
    ) -> str:
        """Send a request, on shell if no other channel is named; give its id."""
        msg_id = f"{self._session}-{next(self._numbers)}"
        header = {
            "msg_id": msg_id,
            "msg_type": kind,
            "session": self._session,
            "username": "bench",
            "date": datetime.now(UTC).isoformat(),
            "version": "5.3",
        }
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        signature = hmac.new(self._key, b"".join(parts), hashlib.sha256).hexdigest().encode()
        (channel or self.shell).send_multipart([DELIMITER, signature, *parts, *buffers])
        return msg_id

    def execute(self, code: str) -> str:
        """Send an execute request as frontends do; give its id."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        return self.send("execute_request", content)

    def hear(self, *ids: str, has_reply: bool = True, has_idle: bool = True) -> Heard:
        """Read until the replies and idle states of these requests are there.

        Raises:
            TimeoutError: they did not come.
        """
        heard = Heard(set[str]())
        if has_idle:
            heard.waiting |= {f"{msg_id}+idle" for msg_id in ids}
        if has_reply:
            heard.waiting |= {f"{msg_id}+reply" for msg_id in ids}
        end = time.monotonic() + DEADLINE_S
        while heard.waiting:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"{self.name}: no {len(heard.waiting)} answers")
            if self.process.poll() is not None:
                raise TimeoutError(f"{self.name}: ended with {self.process.returncode}")
            for ready, _ in self._poller.poll(int(min(left_s, 1.0) * 1000) + 1):
                self._drain(ready, heard)
        return heard

    def _drain(self, ready: zmq.Socket[bytes], heard: Heard) -> None:
        while True:
            try:
                frames = ready.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            note([frame.buffer for frame in frames], heard, is_reply=ready is self.shell)

    def run(self, code: str) -> Heard:
        """Execute and wait."""
        return self.hear(self.execute(code))

    def close(self) -> None:
        """End the kernel and everything it started."""
        import psutil

        tree: list[psutil.Process] = []
        if self.process.poll() is None:
            tree = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait(DEADLINE_S)
        for process in tree:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(tree, timeout=DEADLINE_S)
        self._context.destroy(linger=0)


def note(frames: Sequence[memoryview], heard: Heard, *, is_reply: bool) -> None:
    """Take one message into account."""
    at = next(n for n, frame in enumerate(frames) if frame == DELIMITER)
    header, parent = (json.loads(bytes(frame)) for frame in frames[at + 2 : at + 4])
    msg_id = (parent or {}).get("msg_id", "")  # xeus sends null where there is none
    heard.buffer_bytes += sum(len(frame) for frame in frames[at + 6 :])
    if is_reply:
        heard.waiting.discard(f"{msg_id}+reply")
        heard.content = json.loads(bytes(frames[at + 5]))
    elif header["msg_type"] == "stream":
        heard.characters += len(json.loads(bytes(frames[at + 5]))["text"])
    elif header["msg_type"] == "display_data":
        heard.characters += len(frames[at + 5])
    elif header["msg_type"] == "status" and b'"idle"' in bytes(frames[at + 5]):
        heard.waiting.discard(f"{msg_id}+idle")
