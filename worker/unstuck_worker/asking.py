"""Questions of the worker to its broker, such as which snapshots there are.

Threads: any thread asks and waits; the lane thread brings the answer.
"""

from __future__ import annotations

import itertools
import queue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck.protocol import RewindAnswer, SnapshotList, ToBroker

    Answer = SnapshotList | RewindAnswer

DEADLINE_S = 10.0
"""The broker answers at once; it may be stopped, or behind with outputs."""


class Asking:
    """The questions that wait for an answer."""

    def __init__(self, send: Callable[[ToBroker], None]) -> None:
        """Ask through ``send``."""
        self._send = send
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Answer]] = {}

    def ask(self, make: Callable[[int], ToBroker]) -> Answer:
        """Send a question, which ``make`` builds around a number, and wait for its answer.

        Raises:
            TimeoutError: the broker does not answer.
        """
        number = next(self._numbers)
        answer: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._waiting[number] = answer
        try:
            self._send(make(number))
            return answer.get(timeout=DEADLINE_S)
        except queue.Empty:
            raise TimeoutError(f"the broker gave no answer within {DEADLINE_S:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def answered(self, answer: Answer) -> None:
        """Bring an answer; called in the lane thread."""
        waiting = self._waiting.get(answer.request)
        if waiting is not None:
            waiting.put(answer)
