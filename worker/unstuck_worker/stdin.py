"""``input()`` and ``getpass()``: a line from the frontend of the running cell.

Threads: any thread may ask, and only that thread waits; the lane thread brings the answer.
"""

from __future__ import annotations

import builtins
import getpass
import itertools
import queue
import sys
from typing import TYPE_CHECKING

from unstuck.jobcontext import get_context
from unstuck.protocol import InputRequest

if TYPE_CHECKING:
    from unstuck_worker.lane import OutputLane

WAIT_S = 600.0
"""One wait for an answer; a person may take several."""


class Inputs:
    """The input requests that wait for an answer."""

    def __init__(self, lane: OutputLane) -> None:
        """Ask through ``lane``."""
        self._lane = lane
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[int, queue.SimpleQueue[str | None]]] = {}

    def install(self) -> None:
        """Put ours in the place of Python's own functions."""
        builtins.input = self.read_line
        getpass.getpass = self.read_password

    def read_line(self, prompt: object = "", /) -> str:
        """Ask for a line of text, as Python's ``input`` does."""
        return self._ask(str(prompt), password=False)

    def read_password(
        self,
        prompt: str = "Password: ",
        stream: object = None,  # noqa: ARG002  (the signature of getpass)
        *,
        echo_char: str | None = None,  # noqa: ARG002
    ) -> str:
        """Ask for a line of text that is not shown."""
        return self._ask(str(prompt), password=True)

    def _ask(self, prompt: str, *, password: bool) -> str:
        context = get_context()
        if context is None or not context.allow_stdin or context.finished:
            from IPython.core.error import StdinNotImplementedError  # noqa: PLC0415

            name = "getpass" if password else "raw_input"
            raise StdinNotImplementedError(
                f"{name} was called, but this frontend does not support input requests."
            )
        sys.stdout.flush()
        sys.stderr.flush()
        number = next(self._numbers)
        answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._waiting[number] = (context.job, answer)
        try:
            self._lane.send(InputRequest(context.job, number, prompt, password))
            return _wait(answer)
        finally:
            self._waiting.pop(number, None)

    def revive(self) -> None:
        """Wait for no answer any more."""
        self._waiting.clear()

    def answer(self, request: int, value: str | None) -> None:
        """Bring an answer; None withdraws the request. Called in the lane thread."""
        waiting = self._waiting.get(request)
        if waiting is not None:
            waiting[1].put(value)

    def withdraw(self, job: int) -> bool:
        """Interrupt the requests of a job; say whether there was one."""
        found = [answer for asking, answer in list(self._waiting.values()) if asking == job]
        for answer in found:
            answer.put(None)
        return bool(found)


def _wait(answer: queue.SimpleQueue[str | None]) -> str:
    while True:
        try:
            value = answer.get(timeout=WAIT_S)
        except queue.Empty:
            continue
        if value is None:
            raise KeyboardInterrupt("Interrupted by user")
        return value
