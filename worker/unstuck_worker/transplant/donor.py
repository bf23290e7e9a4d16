"""Give the variables of this process, a dormant copy, to a fresh worker.

Threads: any; what is pickled is pickled in threads of its own. The caller ends the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck_worker.transplant import parts
from unstuck_worker.transplant.carrying import Carried, Contents, pack
from unstuck_worker.transplant.names import shown
from unstuck_worker.transplant.telling import Telling

if TYPE_CHECKING:
    import socket

VARIABLE_S = 30.0
"""For pickling one variable."""
SEND_S = 120.0
"""For a receiver that does not read; it imports libraries meanwhile."""


def serve(
    connection: socket.socket,
    shell: Any,  # noqa: ANN401  (IPython's is untyped)
    *,
    contents: Contents | None = None,
    deadline_s: float = VARIABLE_S,
) -> Carried | None:
    """Send the session, or some of it, to one receiver; None when that has gone away."""
    contents = contents or Contents.of_session(shell, same_machine=True)
    connection.settimeout(SEND_S)

    def write(chunks: list[parts.Chunk]) -> None:
        for chunk in chunks:
            connection.sendall(chunk)

    def tell(done: int, total: int, name: str) -> None:
        write(parts.encode(parts.Progress(done, total, shown(name))))

    try:
        return pack(shell, write, contents, deadline_s=deadline_s, progress=Telling(tell))
    except OSError:
        return None
