"""The output lane: frames out of this process, whole and in order, from any thread.

Threads: every method may be called from any thread. One lock orders frames; who holds it is
`holder`: a signal handler or finaliser that runs inside a write can tell, and waits its turn.
"""

from __future__ import annotations

import array
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from unstuck.codec import encode
from unstuck.protocol import (
    AskExit,
    AskRestart,
    AskRewind,
    Publish,
    SetConcurrencyMode,
    Stream,
    StreamName,
)
from unstuck_worker.content import mend

if TYPE_CHECKING:
    from unstuck.jobcontext import JobContext
    from unstuck.protocol import Finished, ToBroker
    from unstuck_worker.pipes import Pipes

Parent = tuple[int, bytes]
"""A job's number and header; the header is empty while the broker knows the job."""

_WISHES = (AskExit, AskRestart, AskRewind, SetConcurrencyMode)

FRAME_CHARACTERS = 1 << 18
"""Longer text is cut: the broker reads a frame whole, and answers nobody meanwhile."""

Text = tuple["JobContext | None", StreamName, str]
Chunks = list[bytes | memoryview]
Build = Callable[[], Chunks]


class OutputLane:
    """Write messages to the broker; it blocks when the broker is behind: the back-pressure."""

    def __init__(self, sock: socket.socket, pipes: Pipes) -> None:
        """Write to ``sock``, a blocking stream socket; text waits for ``pipes`` to be read."""
        self._sock = sock
        self._pipes = pipes
        self._lock = threading.RLock()
        self._texts: deque[Text] = deque()
        self.put_text = self._texts.append
        """Queue stream text; the next frame of any kind, or `flush`, takes it along."""
        self._late: deque[Build] = deque()
        self._last_acts: deque[Chunks] = deque()
        """What the next frame takes along, in front: values at the ends of cells."""
        self._is_child = False
        self.holder = 0
        """The thread inside a write, by its ident."""
        self.after_write: Callable[[], None] | None = None
        """Called in the thread that wrote, when `interrupted` was set meanwhile."""
        self.after_finish: Callable[[], None] | None = None
        """Called when the end of a job, and its text before it, are written."""
        self.has_asked = False
        """Something was asked of the broker that it does at the end of a cell, before the next."""
        self.interrupted = False
        self.outlives_broker = False
        """Exit handlers run, for nobody who would read what they write."""

    def flush(self) -> None:
        """Write the queued text."""
        if self._texts or self._last_acts:
            self._write(list)

    def send(self, message: ToBroker) -> None:
        """Write a message behind the text before it."""
        if isinstance(message, _WISHES):
            self.has_asked = True
        self._write(lambda: encode(message))

    def publish(
        self,
        context: JobContext | None,
        msg_type: str,
        content: bytes,
        *,
        metadata: bytes = b"{}",
        topic: bytes = b"",
        buffers: list[Any] | None = None,
        is_last_act: bool = False,
    ) -> None:
        """Publish a message under a job, also when that has ended.

        Args:
            context: the job.
            msg_type: the message's type.
            content: a JSON object.
            metadata: a JSON object.
            topic: of iopub; empty where the broker makes one.
            buffers: binary data beside the message.
            is_last_act: no code of the cell runs behind this: it leaves with the cell's end, which
                costs both processes less than two messages.
        """

        def encoded() -> Chunks:
            job, header = parent_of(context)
            return encode(Publish(job, msg_type, content, metadata, topic, header, buffers or []))

        def build() -> Chunks:
            self._pipes.settle()  # A child's text comes before the value or widget that follows it.
            return encoded()

        if is_last_act and not (buffers or self._texts or self._is_child):
            self._last_acts.append(encoded())
        else:
            self._write(build)

    def finish(self, context: JobContext, message: Finished) -> None:
        """Write the end of a job; text that comes later names its parent by the header."""

        def build() -> Chunks:
            self._pipes.settle()
            context.finished = True
            return encode(message)

        self._write(build)
        if self.after_finish is not None:
            self.after_finish()

    def renew_pipes(self, context: JobContext) -> None:
        """Leave descriptors 1 and 2 as they are to the processes of a job, and take new ones."""
        self._pipes.settle()
        self._pipes.renew(self, context)

    def send_with(self, message: ToBroker, descriptors: list[int]) -> None:
        """Write a message with file descriptors beside its first byte."""
        data = b"".join(encode(message))

        def build() -> Chunks:
            return [data[_send_descriptors(self._sock, data, descriptors) :]]

        self._write(build)

    def while_nobody_writes(self, action: Callable[[], None]) -> None:
        """Call ``action`` at a moment when no other thread is inside a write."""
        with self._lock:
            action()

    def hold(self) -> None:
        """Write what is queued and let nobody write until `release`: a fork comes."""
        self.flush()
        self._lock.acquire()

    def hold_within(self, deadline_s: float) -> bool:
        """Do as `hold`, and say whether that was possible in time."""
        if not self._lock.acquire(timeout=deadline_s):
            return False
        self.flush()
        return True

    def release(self) -> None:
        """Let the others write again, after `hold`."""
        self._lock.release()

    def become_child(self) -> None:
        """Write nothing from here on: this is a forked process."""
        self._is_child = True
        self._texts.clear()
        self._last_acts.clear()
        self._lock = threading.RLock()
        self.holder = 0
        self._sock.close()

    def revive(self, page: int) -> None:
        """Write again, in a copy that is the worker now: to new pipes, with a new page."""
        self._lock = threading.RLock()
        self.holder = 0
        self.interrupted = False
        self._texts.clear()
        self._last_acts.clear()
        self._late.clear()
        self._pipes.watch(page)

    def _write(self, build: Build) -> None:
        if self._is_child:
            return
        if self.holder == get_ident():
            # A signal handler or finaliser, inside a write of its own thread.
            self._late.append(build)
            return
        with self._lock:
            # An asynchronous exception that was set before the lock was ours is raised here.
            _checkpoint()
            self.holder = get_ident()
            try:
                self._send(build)
                while self._late:
                    self._send(self._late.popleft())
            finally:
                self.holder = 0
        if self.interrupted and self.after_write is not None:
            self.after_write()

    def _send(self, build: Build) -> None:
        chunks = self._take_last_acts()
        chunks += self._take_texts()
        try:
            chunks += build()
        finally:
            self._send_all(chunks)

    def _take_last_acts(self) -> Chunks:
        chunks: Chunks = []
        if self._last_acts:
            self._pipes.settle()
        while self._last_acts:
            chunks += self._last_acts.popleft()
        return chunks

    def _take_texts(self) -> Chunks:
        """Join the queued text of neighbours into frames."""
        texts = self._texts
        if not texts:
            return []
        self._pipes.settle()
        chunks: Chunks = []
        context, name, text = texts.popleft()
        parts = [text]
        while texts:
            next_context, next_name, text = texts.popleft()
            if next_context is context and next_name is name:
                parts.append(text)
                continue
            chunks += _stream(context, name, "".join(parts))
            context, name, parts = next_context, next_name, [text]
        return chunks + _stream(context, name, "".join(parts))

    def _send_all(self, chunks: Chunks) -> None:
        """Send all chunks, whatever exception a signal handler raises meanwhile; raise it then."""
        total = sum(map(len, chunks))
        if not total:
            return
        if total < 1 << 16 and len(chunks) > 1:
            chunks = [b"".join(chunks)]
        sent: list[int] = []
        held: BaseException | None = None
        while (done := sum(sent)) < total:
            rest = _rest(chunks, done)
            try:
                # The count is kept by C code: an exception cannot come between it and the list.
                sent.extend(map(self._sock.sendmsg, (rest,)))
            except OSError:
                # The broker is gone, and with it everything that this process is for.
                if not self.outlives_broker:
                    os._exit(1)
                break
            except BaseException as error:  # noqa: BLE001  (raised below)
                held = error
        if held is not None:
            raise held


def _checkpoint() -> None:
    """Do nothing; the call lets the interpreter raise what is pending."""


def parent_of(context: JobContext | None) -> Parent:
    """Name a job for the broker: by its number, and by its header once it has ended."""
    if context is None:
        return 0, b""
    return context.job, context.header if context.finished else b""


def _rest(chunks: Chunks, done: int) -> Chunks:
    """Give what is left of the chunks after ``done`` bytes, at most as many as one call takes."""
    if not done and len(chunks) <= 512:
        return chunks
    rest: Chunks = []
    for chunk in chunks:
        if done >= len(chunk):
            done -= len(chunk)
            continue
        rest.append(memoryview(chunk)[done:])
        done = 0
        if len(rest) == 512:
            break
    return rest


def _stream(context: JobContext | None, name: StreamName, text: str) -> Chunks:
    job, header = parent_of(context)
    if len(text) <= FRAME_CHARACTERS:
        return _stream_frame(job, name, text, header)
    chunks: Chunks = []
    for at in range(0, len(text), FRAME_CHARACTERS):
        chunks += _stream_frame(job, name, text[at : at + FRAME_CHARACTERS], header)
    return chunks


def _stream_frame(job: int, name: StreamName, text: str, header: bytes) -> Chunks:
    try:
        return encode(Stream(job, name, text, header))
    except UnicodeEncodeError:
        return encode(Stream(job, name, mend(text), header))


def _send_descriptors(sock: socket.socket, data: bytes, descriptors: list[int]) -> int:
    """Send descriptors with the first bytes of ``data``; give how many bytes went along."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    return sock.sendmsg([data], rights)
