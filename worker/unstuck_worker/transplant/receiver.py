"""Take the variables of a donor into the shell of this process, which has run no cell yet.

Threads: the main thread, before the worker says that it is ready; groups are read in another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from unstuck_worker.transplant import parts
from unstuck_worker.transplant.carrying import Unpacking
from unstuck_worker.transplant.names import shown
from unstuck_worker.transplant.outcome import Outcome
from unstuck_worker.transplant.telling import Forward

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    Tell = Callable[[int, int, str], None]

RECEIVE_S = 300.0


class _Connection:
    """Reads of a socket until a deadline."""

    def __init__(self, connection: socket.socket, end_s: float) -> None:
        self._connection = connection
        self._end_s = end_s

    @property
    def left_s(self) -> float:
        return max(self._end_s - time.monotonic(), 0.001)

    def read_into(self, view: memoryview) -> None:
        """Fill a view.

        Raises:
            EOFError: the donor is gone, or too slow.
        """
        while view:
            self._connection.settimeout(self.left_s)
            try:
                count = self._connection.recv_into(view)
            except OSError as error:
                raise EOFError(str(error)) from error
            if not count:
                raise EOFError("the donor has ended")
            view = view[count:]


def receive(
    connection: socket.socket,
    shell: Any,  # noqa: ANN401  (IPython's is untyped)
    *,
    progress: Tell | None = None,
    is_fresh: bool = True,
    known: Mapping[str, object] | None = None,
    deadline_s: float = RECEIVE_S,
) -> Outcome:
    """Take what a donor sends; what has not come by the deadline is named as failed.

    Args:
        connection: to the donor.
        shell: gets the variables.
        progress: is told how many of how many have come and what is next, after a second.
        is_fresh: the shell has run no cell: it goes on where the donor was.
        known: what does not have to come, since it is here, by name.
        deadline_s: for all of it.
    """
    start_s = time.monotonic()
    source = _Connection(connection, start_s + deadline_s)
    reader = parts.Reader(source.read_into)
    tell = Forward(progress or (lambda _done, _total, _name: None))
    unpacking: Unpacking | None = None
    missing: dict[str, str] = {}
    size_bytes = done = total = 0
    problem = ""
    try:
        reader.read_start()
        for meta, blocks in reader.parts():
            match meta:
                case parts.Header():
                    unpacking, total = Unpacking(shell, meta, source.left_s, known), len(meta.names)
                case parts.Progress():
                    tell(meta.done, 2 * meta.total, meta.name)  # It is read after it is sent.
                case parts.Group() if unpacking is not None:
                    tell(total + done, 2 * total, shown(meta.names[0]))
                    unpacking.take(meta, blocks)
                    done += len(meta.names)
                    size_bytes += sum(map(len, blocks))
                case parts.Missing():
                    missing[meta.name] = meta.reason
                case _:
                    pass
    except parts.Damaged as error:
        problem = str(error)
    if unpacking is None:
        failed = [("variables", problem or "nothing has come")]
        return Outcome(0, failed, 0, time.monotonic() - start_s)
    with unpacking:
        carried = unpacking.finish(missing, size_bytes, is_fresh=is_fresh)
    failed = [(shown(name), reason) for name, reason in carried.missing.items()]
    return Outcome(carried.came, failed, size_bytes, time.monotonic() - start_s)
