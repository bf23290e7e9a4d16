"""fd 1 and 2 of the worker's process tree, read by the broker: no GIL can stop this reader."""

from __future__ import annotations

import codecs
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from unstuck.protocol import StreamName
from unstuck_broker.pace import Pace

if TYPE_CHECKING:
    import asyncio

    from unstuck_broker.pace import Precedence

_counts = struct.Struct("=QQQ")
_SLICE_BYTES = 64 << 10
_LAST_WORDS_BYTES = 4 << 10
_MAX_OLD_PIPES = 64

TakeText = Callable[[StreamName, str, bytes | None], None]


class Pipe:
    """One pipe, with the cell that it belongs to once the worker has moved on to another."""

    def __init__(self, fd: int, name: StreamName) -> None:
        """Own ``fd``, a non-blocking read end."""
        self.fd = fd
        self.name = name
        self.pace: Pace | None = None
        """Of its reader."""
        self.parent: bytes | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> str | None:
        """Read one slice; "" when there is nothing now, None at the end."""
        try:
            data = os.read(self.fd, _SLICE_BYTES)
        except BlockingIOError:
            return ""
        except OSError:
            return None
        return self._decoder.decode(data) if data else None


class Pipes:
    """The pipes of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fds: tuple[int, int],
        sync_fd: int,
        take: TakeText,
        read_lane: Callable[[], object],
        precedence: Precedence,
    ) -> None:
        """Read fd 1 and 2.

        Args:
            loop: the broker's.
            fds: read ends for stdout and stderr; closed by `close`.
            sync_fd: the page shared with the worker, which waits there before it writes text to
                its lane: text of children stays in its place (`unstuck_worker.pipes.SyncPage`).
            take: gets text, with its cell's header where that is not the running cell.
            read_lane: reads a slice of the output lane; called between reading and taking, since
                what the worker wrote there before the child wrote here goes first.
            precedence: what goes before a flood.
        """
        self._loop = loop
        self._take = take
        self._read_lane = read_lane
        self._precedence = precedence
        self._page = mmap.mmap(sync_fd, mmap.PAGESIZE)
        self._generation = 0
        self._reads = [0, 0]
        self._current = [Pipe(fds[0], StreamName.stdout), Pipe(fds[1], StreamName.stderr)]
        self._old: deque[Pipe] = deque()
        self._last_words = bytearray()
        self.paused = True
        self.resume()

    def replace(self, fds: tuple[int, int], parent: bytes) -> None:
        """Take new pipes into use; children of ``parent`` may hold the old ones."""
        for pipe in self._current:
            pipe.parent = parent
            self._old.append(pipe)
        for fd in fds:
            os.set_blocking(fd, False)
        self._current = [Pipe(fds[0], StreamName.stdout), Pipe(fds[1], StreamName.stderr)]
        self._generation += 1
        self._reads = [0, 0]
        self._share()
        if not self.paused:
            for pipe in self._current:
                self._start(pipe)
        while len(self._old) > _MAX_OLD_PIPES:
            self._drop(self._old[0])

    def pause(self) -> None:
        """Leave the rest in the pipes: whoever writes there blocks."""
        if not self.paused:
            self.paused = True
            for pipe in self._all():
                self._stop(pipe)

    def resume(self) -> None:
        """Go on reading."""
        if self.paused:
            self.paused = False
            for pipe in self._all():
                self._start(pipe)

    def _start(self, pipe: Pipe) -> None:
        """Read a pipe from here on, at a pace of its own."""
        rest, go_on = partial(self._rest, pipe), partial(self._go_on, pipe)
        pipe.pace = Pace(self._loop, rest, go_on, self._precedence)
        self._go_on(pipe)

    def _go_on(self, pipe: Pipe) -> None:
        self._loop.add_reader(pipe.fd, self._on_readable, pipe)

    def _rest(self, pipe: Pipe) -> None:
        self._loop.remove_reader(pipe.fd)

    def _stop(self, pipe: Pipe) -> None:
        """Read a pipe no more."""
        if pipe.pace is not None:
            pipe.pace.forget()
        self._loop.remove_reader(pipe.fd)

    def drain(self) -> None:
        """Read all that is there now; the worker is dead, its children may live."""
        for pipe in self._all():
            while text := pipe.read():
                self._say(pipe, text)

    def last_words(self) -> str:
        """Give the last lines of fd 2."""
        text = self._last_words.decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-20:])

    def close(self) -> None:
        """Stop reading; the descriptors of pipes that replaced the first ones are closed too."""
        self.pause()
        for pipe in self._all():
            os.close(pipe.fd)
        self._page.close()

    def _all(self) -> list[Pipe]:
        return [*self._current, *self._old]

    def _on_readable(self, pipe: Pipe) -> None:
        assert pipe.pace is not None
        if not pipe.pace.begin() or self.paused:
            return
        self._count(pipe)
        text = pipe.read()
        if text:
            self._read_lane()
            self._say(pipe, text)
        self._count(pipe)
        if text is None:
            self._at_end(pipe)
        elif not self.paused:
            pipe.pace.end(len(text))

    def _count(self, pipe: Pipe) -> None:
        """Count the begin or the end of a read, where the worker writes to this pipe."""
        if pipe in self._current:
            self._reads[self._current.index(pipe)] += 1
            self._share()

    def _share(self) -> None:
        _counts.pack_into(self._page, 0, self._generation, *self._reads)

    def _say(self, pipe: Pipe, text: str) -> None:
        if pipe.name is StreamName.stderr:
            self._last_words += text.encode("utf-8", "replace")
            del self._last_words[:-_LAST_WORDS_BYTES]
        self._take(pipe.name, text, pipe.parent)

    def _at_end(self, pipe: Pipe) -> None:
        """Forget a pipe that nobody can write to any more."""
        self._stop(pipe)
        if pipe in self._old:
            self._drop(pipe)

    def _drop(self, pipe: Pipe) -> None:
        self._stop(pipe)
        self._old.remove(pipe)
        os.close(pipe.fd)
