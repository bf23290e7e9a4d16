"""``sys.stdout`` and ``sys.stderr`` of user code: text under the cell that wrote it.

Threads: any thread may write. Text is queued at the lane; a slow printer's text is written at once,
so that it is seen even if C code hangs right after. Only in a flood does text wait, for `FLOOD_S`.
"""

from __future__ import annotations

import io
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from unstuck.jobcontext import JobContext, current_job, get_context
from unstuck.protocol import StreamName
from unstuck_worker.pipes import write_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextvars import Token

    from unstuck_worker.lane import OutputLane

FLOOD_S = 0.01
"""The window in which writes are counted, and the longest wait of text in a flood."""
WRITES_AT_ONCE = 32
"""Writes in one window that go out at once; halved in each window of a flood."""
FLOOD_CHARACTERS = 64 << 10
CHARACTERS_UNSEEN = 512
FLUSH_DEADLINE_S = 3600.0


class Flood:
    """Decide when queued text is written: at once, or together with what follows."""

    def __init__(self, lane: OutputLane) -> None:
        """Flush ``lane``; a thread of its own starts at the first flood."""
        self._lane = lane
        self._left = WRITES_AT_ONCE
        self._allowed = WRITES_AT_ONCE
        self._window_end_s = 0.0
        self._waiting = 0
        self.armed = False
        """The thread will flush soon."""
        self.skips = 0
        """While `armed`: so many characters need not even look at the clock."""
        self._wake: queue.SimpleQueue[None] | None = None
        lane.after_finish = self.begin_anew

    def begin_anew(self) -> None:
        """Let the first writes of the next cell go out at once, however much the last one wrote.

        Text that waits here is overtaken by what C code writes.
        """
        self._left = self._allowed = WRITES_AT_ONCE
        self.skips = 0

    def after_write(self, characters: int) -> None:
        """Flush now, or leave the text to the next write or to the thread."""
        if self._left > 0:
            self._left -= 1
            self._lane.flush()
            return
        if self.armed:
            self._waiting += CHARACTERS_UNSEEN
        self._waiting += characters
        now = time.monotonic()
        if now >= self._window_end_s:
            idle = now - self._window_end_s > FLOOD_S
            self._allowed = WRITES_AT_ONCE if idle else max(self._allowed // 2, 1)
            self._left = self._allowed - 1
            self._window_end_s = now + FLOOD_S
        elif self._waiting < FLOOD_CHARACTERS:
            if not self.armed:
                self._arm()
            self.skips = CHARACTERS_UNSEEN
            return
        self._waiting = 0
        self._lane.flush()

    def _arm(self) -> None:
        wake = self._wake
        if wake is None:
            wake = queue.SimpleQueue()
            threading.Thread(
                target=self._run, args=(wake,), name="unstuck-streams", daemon=True
            ).start()
            self._wake = wake
        try:
            self.armed = True
        finally:
            # One call of C code: an interrupt of the user's cannot leave it half done, and none
            # that comes before it leaves us armed with nobody awake.
            wake.put(None)

    def _run(self, wake: queue.SimpleQueue[None]) -> None:
        """Flush what the last writes of a flood left behind."""
        while True:
            try:
                wake.get(timeout=FLUSH_DEADLINE_S)
            except queue.Empty:
                continue
            time.sleep(FLOOD_S)
            # First this: a write that sees it set is flushed below.
            self.armed = False
            self._lane.flush()

    def forget_thread(self) -> None:
        """Start anew in a forked copy, where the thread does not exist."""
        self._wake = None
        self.armed = False


class OutStream(io.TextIOBase):
    """One standard stream; after a fork the child writes plainly to its descriptor."""

    def __init__(self, stream: StreamName, lane: OutputLane, flood: Flood) -> None:
        """Be ``sys.stdout`` or ``sys.stderr``."""
        super().__init__()
        self.name = stream.value
        self._stream = stream
        self._descriptor = 1 if stream is StreamName.stdout else 2
        self._lane = lane
        self._put_text = lane.put_text
        self._flood = flood
        self._is_child = False

    @override
    def write(self, text: str, /) -> int:
        """Write text under the running cell."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        size = len(text)
        if self._is_child:
            write_all(self._descriptor, text.encode(errors="backslashreplace"))
        elif size:
            self._put_text((current_job.get() or get_context(), self._stream, text))
            flood = self._flood
            if flood.armed and flood.skips > 0:
                flood.skips -= size
            else:
                flood.after_write(size)
        return size

    @override
    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]
        """Write several texts."""
        for line in lines:
            self.write(line)

    @override
    def flush(self) -> None:
        """Send what was written."""
        if not self._is_child:
            self._lane.flush()

    @override
    def close(self) -> None:
        """Flush; the stream stays open, for other cells print too."""
        self.flush()

    @override
    def fileno(self) -> int:
        """Give the descriptor that child processes may write to."""
        return self._descriptor

    @override
    def isatty(self) -> bool:
        """Deny: this is no terminal."""
        return False

    @override
    def writable(self) -> bool:
        """Confirm."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Name the encoding that bytes would have."""
        return "UTF-8"

    @property
    def parent_header(self) -> Mapping[str, Any]:
        """The header of the request that the running code belongs to."""
        context = get_context()
        return context.message["header"] if context else {}

    def set_parent(self, parent: Mapping[str, Any]) -> None:
        """Write under another request from here on, in this context."""
        adopt_parent(parent)

    def set_thread_parent(self, parent: Mapping[str, Any]) -> Token[JobContext | None]:
        """Write under another request in this thread, until `reset_thread_parent`."""
        return adopt_parent(parent)

    def reset_thread_parent(self, token: Token[JobContext | None]) -> None:
        """Write under the request from before the `set_thread_parent` that gave ``token``."""
        current_job.reset(token)

    def _is_master_process(self) -> bool:
        """Tell whether this is the process of the cells; libraries ask ipykernel's stream so."""
        return not self._is_child

    def become_child(self) -> None:
        """Write plainly from here on: this is a forked process."""
        self._is_child = True


# click keeps colours for streams of this module, which show them though they are no terminal.
OutStream.__module__ = "ipykernel.iostream"


def adopt_parent(parent: Mapping[str, Any]) -> Token[JobContext | None]:
    """Let the running code's output appear under ``parent``, a message or a header.

    Returns:
        What `current_job` takes to reset it.
    """
    running = get_context()
    adopted = JobContext.under(parent)
    if running is not None:
        if running.message["header"].get("msg_id") == adopted.message["header"].get("msg_id"):
            return current_job.set(running)  # ipywidgets' Output asks for what it already has.
        adopted.cell = running.cell
    return current_job.set(adopted)
