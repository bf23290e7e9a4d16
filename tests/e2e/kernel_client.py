"""A running kernel and a client of it: every wait has a deadline, every answer is counted.

Threads: one; all sockets are read by the thread that waits.
"""

from __future__ import annotations

import os
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

import psutil
import zmq
from jupyter_client.manager import KernelManager
from jupyter_kernel_test.msgspec_v5 import schema_fragments, validate_message

from e2e.result import Message, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.session import Session
    from typing_extensions import Unpack

WAIT_S = 20.0
"""How long a test waits for a fact before it fails; far beyond what an idle machine needs."""
START_S = 30.0
EXECUTE: dict[str, object] = {
    "silent": False,
    "store_history": True,
    "user_expressions": {},
    "allow_stdin": False,
    "stop_on_error": True,
}
UNCHECKED = frozenset({"stream", "status", "input_request"})
NO_REPLY = frozenset({"comm_open", "comm_msg", "comm_close"})


class SendOptions(TypedDict, total=False):
    """What goes around a message's content; ``header`` adds fields to it."""

    channel: str
    header: dict[str, Any] | None
    metadata: dict[str, Any] | None
    buffers: list[bytes | memoryview[bytes]] | None


class ExecuteOptions(TypedDict, total=False):
    """What an execute request may say, and what goes around it."""

    channel: str
    header: dict[str, Any]
    metadata: dict[str, Any]
    silent: bool
    store_history: bool
    user_expressions: dict[str, str]
    allow_stdin: bool
    stop_on_error: bool


class Kernel:
    """One kernel process and one client that speaks all four channels with it."""

    def __init__(self, manager: KernelManager, log: Path, *, is_another: bool = False) -> None:
        """Take a started kernel; ``log`` is where its stderr goes.

        Args:
            manager: has started it.
            log: the file.
            is_another: a client with a session of its own, since sessions are what routes replies.
        """
        self.manager = manager
        self.log = log
        self.client: BlockingKernelClient = manager.client()
        if is_another:
            self.client.session = manager.session.clone()
            self.client.session.session = str(uuid.uuid4())
        self.client.start_channels(hb=False)
        self.session: Session = self.client.session
        self.is_validating = True
        """Messages are held against the specification's schema; that is too slow for floods."""
        self.strays: list[Message] = []
        self.input_requests: list[Message] = []
        self._results: dict[str, Result] = {}
        self._sockets: dict[zmq.Socket[bytes], str] = {}
        self._poller = zmq.Poller()
        for channel in ("shell", "control", "stdin", "iopub"):
            socket = getattr(self.client, f"{channel}_channel").socket
            self._sockets[socket] = channel
            self._poller.register(socket, zmq.POLLIN)

    @classmethod
    def start(
        cls,
        name: str,
        log: Path,
        *,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        extra_arguments: Sequence[str] = (),
        prepare: Callable[[KernelManager], None] | None = None,
    ) -> Kernel:
        """Start the kernel with this kernelspec and wait until it answers on shell and iopub."""
        manager = KernelManager(kernel_name=name)
        if prepare is not None:
            prepare(manager)
        environment = {**os.environ, **(env or {})}
        # ipykernel, our peer in these tests, leaves fd 1 and 2 alone where it sees this.
        environment.pop("PYTEST_CURRENT_TEST", None)
        with log.open("wb") as stderr:
            manager.start_kernel(
                cwd=str(cwd or log.parent),
                stderr=stderr,
                extra_arguments=list(extra_arguments),
                env=environment,
            )
        kernel = cls(manager, log)
        try:
            kernel.wait_until_ready()
        except BaseException:
            kernel.kill()
            raise
        return kernel

    def beside(self) -> Kernel:
        """Give another client of the same kernel; `close` ends the kernel, not the client."""
        return Kernel(self.manager, self.log, is_another=True)

    # --- asking ---------------------------------------------------------------------------------

    def send(
        self,
        kind: str,
        content: dict[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> Result:
        """Send a request."""
        message = self.session.msg(kind, content or {}, metadata=options.get("metadata"))
        message["header"].update(options.get("header") or {})
        socket = getattr(self.client, f"{options.get('channel', 'shell')}_channel").socket
        result = Result(message["header"], has_reply=kind not in NO_REPLY)
        self._results[result.msg_id] = result
        self.session.send(socket, message, buffers=options.get("buffers"))
        return result

    def execute(self, code: str, **options: Unpack[ExecuteOptions]) -> Result:
        """Send an execute request; what is not its content goes around it."""
        content = {**EXECUTE, "code": code}
        content.update((name, value) for name, value in options.items() if name in EXECUTE)
        return self.send(
            "execute_request",
            content,
            channel=options.get("channel", "shell"),
            header=options.get("header"),
            metadata=options.get("metadata"),
        )

    def run(
        self, code: str, *, deadline_s: float = WAIT_S, **options: Unpack[ExecuteOptions]
    ) -> Result:
        """Execute code and wait for its reply and its idle state."""
        return self.finish(self.execute(code, **options), deadline_s=deadline_s)

    def run_ok(
        self, code: str, *, deadline_s: float = WAIT_S, **options: Unpack[ExecuteOptions]
    ) -> Result:
        """Execute code that must succeed."""
        result = self.run(code, deadline_s=deadline_s, **options)
        traceback = "\n".join(result.content.get("traceback", []))
        assert result.status == "ok", f"{result}\n{traceback}"
        return result

    def evaluate(self, expression: str, *, deadline_s: float = WAIT_S) -> str:
        """Give the plain text of an expression, by a silent request that leaves no trace."""
        result = self.run(
            "", silent=True, user_expressions={"it": expression}, deadline_s=deadline_s
        )
        answer = result.content["user_expressions"]["it"]
        assert answer["status"] == "ok", answer
        return str(answer["data"]["text/plain"])

    def request(
        self,
        kind: str,
        content: dict[str, Any] | None = None,
        *,
        deadline_s: float = WAIT_S,
        **options: Unpack[SendOptions],
    ) -> Result:
        """Send a request and wait for its reply and its idle state."""
        return self.finish(self.send(kind, content, **options), deadline_s=deadline_s)

    def answer(self, value: str, *, deadline_s: float = WAIT_S) -> Message:
        """Wait for one input request, answer it, and give the request."""
        self.wait(lambda: bool(self.input_requests), "an input request", deadline_s=deadline_s)
        request = self.input_requests.pop(0)
        reply = self.session.msg("input_reply", {"value": value, "status": "ok"}, parent=request)
        self.session.send(self.client.stdin_channel.socket, reply)
        return request

    # --- waiting --------------------------------------------------------------------------------

    def finish(self, result: Result, *, deadline_s: float = WAIT_S) -> Result:
        """Wait until a request is answered: one busy, one reply, one idle."""
        kind = result.header["msg_type"]
        self.wait(lambda: result.is_complete, f"the answers to {kind}", deadline_s=deadline_s)
        assert result.states == ["busy", "idle"], result
        first = result.iopub[0]
        assert first["header"]["msg_type"] == "status", f"busy does not come first: {result}"
        if result.has_reply:
            expected = kind.removesuffix("_request") + "_reply"
            assert result.reply["header"]["msg_type"] == expected, result
        for message in (*result.replies, *result.iopub):
            assert message["parent_header"]["session"] == result.header["session"]
            assert message["parent_header"]["msg_type"] == kind
        return result

    def wait(self, fact: Callable[[], bool], what: str, *, deadline_s: float = WAIT_S) -> None:
        """Read messages until ``fact`` holds."""
        end = time.monotonic() + deadline_s
        while not fact():
            left_s = end - time.monotonic()
            assert left_s > 0, f"no {what} within {deadline_s} s\n{self._describe()}"
            if not self._receive(min(left_s, 0.2)):
                assert self.is_alive or fact(), f"no {what}: the kernel died\n{self._describe()}"

    def wait_for_text(self, result: Result, text: str, *, deadline_s: float = WAIT_S) -> None:
        """Wait until a request's streams contain ``text``."""
        self.wait(
            lambda: text in result.stdout or text in result.stderr,
            f"text {text!r}",
            deadline_s=deadline_s,
        )

    def wait_for_log(self, text: str, *, deadline_s: float = WAIT_S) -> None:
        """Wait until the kernel's stderr contains ``text``."""
        self.wait(lambda: text in self.log_text, f"log line with {text!r}", deadline_s=deadline_s)

    def wait_until_ready(self, *, deadline_s: float = START_S) -> None:
        """Wait until the kernel replies and this client's iopub subscription is seen to work."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            result = self.send("kernel_info_request")
            self.wait(partial(bool, result.replies), "kernel_info", deadline_s=deadline_s)
            try:
                self.wait(partial(_is_complete, result), "idle", deadline_s=1)
            except AssertionError:
                continue  # this subscription came too late for its status; ask again
            self.strays.clear()
            return
        raise AssertionError(f"the kernel did not start\n{self._describe()}")

    @property
    def is_idle(self) -> bool:
        """Tell whether it lives and every request of this client is answered."""
        return self.is_alive and all(result.is_complete for result in self._results.values())

    def forget(self) -> None:
        """Drop what came without a request of ours; what the next test finds is its own."""
        self._receive(0)
        self.strays.clear()
        self.input_requests.clear()

    def _receive(self, wait_s: float) -> bool:
        """Take every message that is there; wait for the first one."""
        ready = dict(self._poller.poll(int(wait_s * 1000) + 1))
        for socket in ready:
            for _ in range(1000):
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                _, signed = self.session.feed_identities(frames)
                self._take(self._sockets[socket], self.session.deserialize(signed))
        return bool(ready)

    def _take(self, channel: str, message: Message) -> None:
        """Give a message to the request it answers."""
        kind = message["header"]["msg_type"]
        # The schema takes a password flag for a number, and knows no "restarting".
        has_schema = kind in schema_fragments and kind not in UNCHECKED
        if self.is_validating and has_schema and message["content"].get("status") != "aborted":
            validate_message(message, kind)
        result = self._results.get((message["parent_header"] or {}).get("msg_id", ""))
        if channel == "stdin":
            self.input_requests.append(message)
        elif result is None:
            self.strays.append(message)
        elif channel == "iopub":
            result.iopub.append(message)
            assert len(result.states) <= 2, f"too many states: {result}"
        else:
            result.replies.append(message)
            assert len(result.replies) == 1, f"a second reply: {result}"

    def _describe(self) -> str:
        """Say what is known, for the message of a failed wait."""
        unfinished = [repr(r) for r in self._results.values() if not r.is_complete]
        strays = [(m["header"]["msg_type"], str(m["content"])[:100]) for m in self.strays[-5:]]
        return (
            f"unanswered: {unfinished}\nwithout parent: {strays}\nstderr:\n{self.log_text[-4000:]}"
        )

    # --- the process ----------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Give the process id that the client's manager started."""
        provisioner: Any = self.manager.provisioner
        return int(provisioner.process.pid)

    @property
    def is_alive(self) -> bool:
        """Tell whether the process that the manager started still runs."""
        provisioner: Any = self.manager.provisioner
        return (
            provisioner is not None
            and provisioner.process is not None
            and provisioner.process.poll() is None
        )

    @property
    def log_text(self) -> str:
        """Give what the kernel wrote to its stderr."""
        return self.log.read_text(errors="replace")

    @property
    def tree(self) -> list[psutil.Process]:
        """List the kernel's process and all its descendants."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def interrupt(self) -> Result:
        """Ask for an interrupt by message."""
        return self.request("interrupt_request", channel="control")

    def close(self) -> None:
        """Shut down as a frontend does, and release everything."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=not self.is_alive)

    def kill(self) -> None:
        """End it at once."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def _is_complete(result: Result) -> bool:
    return result.is_complete
