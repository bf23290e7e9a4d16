"""Whether the first worker's template is worth its memory: it is where somebody may restart.

A kernel whose first cell is there at once belongs to a program that waits for nothing, which runs
its cells and ends the kernel: such a kernel gets a template with its first restart or crash.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from unstuck.protocol import Ready
from unstuck.typing import BrokerMsgType, MsgType
from unstuck_broker.events import FromWorker, Received, WorkerExited

if TYPE_CHECKING:
    from unstuck_broker.events import Event
    from unstuck_broker.wire import Request

REST_S = 0.1
"""How long a worker that is there waits for its first cell before its template is kept.

A person takes longer, and so does ``wait_for_ready`` of jupyter_client, which listens for 0.2 s
after the first answer. A program that sends its first cell at once has sent it before the worker is
there, some 50 ms after the kernel has answered.
"""


class _Cell(Struct):
    silent: bool = False
    store_history: bool = True


_cells = msgspec.json.Decoder(_Cell)


class Verdict(Enum):
    """What becomes of the template."""

    open = "open"
    """Not decided."""
    keep = "keep"
    drop = "drop"


class Trial:
    """One kernel's start, from its launch to its first cell or its first rest."""

    def __init__(self) -> None:
        """Begin with a worker that was just started."""
        self.verdict = Verdict.open
        self._ready_s: float | None = None

    def judge(self, event: Event, now: float) -> Verdict:
        """Take what happens, until there is a verdict; it is asked again `REST_S` after `Ready`.

        Args:
            event: what happened.
            now: monotonic seconds.
        """
        match event:
            case _ if self._ready_s is not None and now >= self._ready_s + REST_S:
                self.verdict = Verdict.keep
            case FromWorker(Ready()):
                self._ready_s = now
            case Received(request) if request.kind is MsgType.execute_request:
                if not _is_of_a_frontend(request):
                    self.verdict = Verdict.drop
            case Received(request) if request.kind is BrokerMsgType.restart_request:
                self.verdict = Verdict.keep
            case WorkerExited():
                self.verdict = Verdict.keep  # The next one, and who crashes once does it again.
            case _:
                pass
        return self.verdict


def _is_of_a_frontend(request: Request) -> bool:
    """Tell whether a cell is not the user's: editors set kernels up with cells that leave no trace.

    Who runs them has a person before it.
    """
    try:
        cell = _cells.decode(request.content_json)
    except msgspec.MsgspecError:
        return False
    return cell.silent or not cell.store_history
