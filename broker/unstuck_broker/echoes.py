"""Replies of cells whose outputs an ``Output`` widget took: they wait for what clients send back.

A client that captures an output sends the widget's new state at once. jupyter_client sends through
a second handle of the shell socket, and sending takes the notice that a reply is there from whoever
waits for it: a reply of that moment is never read (nbclient then hangs, with any kernel).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from unstuck.protocol import Finished

if TYPE_CHECKING:
    from unstuck_broker.core import Core
    from unstuck_broker.job import Job

QUIET_S = 0.03
"""After the last message of a widget: nbclient sends all of a cell within 5 ms."""
LIMIT_S = 0.25
"""For a client that sends nothing back."""


class _Held(Struct):
    message: Finished
    due_s: float
    limit_s: float


class Echoes:
    """Holds the ends of captured cells for a moment."""

    def __init__(self, core: Core) -> None:
        """Hold for ``core``."""
        self._core = core
        self._held: dict[int, _Held] = {}
        self._heard_s = float("-inf")

    def hold(self, job: Job, message: Finished, now: float) -> None:
        """Let the end of a job wait."""
        limit_s = now + LIMIT_S
        heard = job.started_s is not None and self._heard_s >= job.started_s
        self._held[job.number] = _Held(message, now + QUIET_S if heard else limit_s, limit_s)

    def heard(self, now: float) -> None:
        """Note that a client has sent a widget's state."""
        self._heard_s = now
        for held in self._held.values():
            held.due_s = min(now + QUIET_S, held.limit_s)

    def deadline_s(self) -> float | None:
        """Name the monotonic time at which `tick` has something to do."""
        return min(held.due_s for held in self._held.values()) if self._held else None

    def tick(self, now: float) -> None:
        """Let go of what has waited long enough."""
        if self._held:
            for number in [n for n, held in self._held.items() if held.due_s <= now]:
                self._core.finish(self._held.pop(number).message)

    def let_go(self) -> None:
        """Hold nothing back any longer: the worker is gone."""
        self.tick(float("inf"))
