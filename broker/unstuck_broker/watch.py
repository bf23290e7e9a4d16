"""Looks at the worker from outside while it runs something: its answers, and what it uses.

Two facts are kept apart: a pong says that the worker's lane thread runs, so the GIL is free; the
number in it says whether the main thread's loop has moved.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from unstuck.protocol import Ping
from unstuck_broker.actions import Lane
from unstuck_broker.events import LimitExceeded, WorkerProgress
from unstuck_broker.reason import Why, over_limit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from unstuck.config import Config
    from unstuck.protocol import Pong
    from unstuck_broker.events import Event
    from unstuck_broker.reason import Reason
    from unstuck_broker.supervisor import Supervisor

_PING_S = 1.0
_LIMITS_S = 0.1
"""An allocation of gigabytes takes longer than this to be filled."""
_SURE_S = 0.05
"""A copy of the worker is taken for a part of its tree until it has reported, milliseconds after
its fork: what exceeds a limit is looked at again after this."""


class Watch:
    """Pings the worker and measures its tree; runs only while it is told to.

    Threads: the broker's loop only.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        supervisor: Supervisor,
        emit: Callable[[Event], None],
    ) -> None:
        """Watch the worker of ``supervisor``; ``emit`` gets what is seen."""
        self._loop = loop
        self._supervisor = supervisor
        self._emit = emit
        self._asked = 0
        self._answered = 0
        self._main_steps = 0
        self._ping: asyncio.TimerHandle | None = None
        self._limits: asyncio.TimerHandle | None = None

    def follow(self, config: Config, *, busy: bool) -> None:
        """Begin or end the watch: an idle worker is left alone, but for limits that are set."""
        if busy and self._ping is None:
            self._ping = self._loop.call_later(_PING_S, self._on_ping)
        elif not busy and self._ping is not None:
            self._ping.cancel()
            self._ping = None
        self._config = config
        if self._limits is None:
            self._watch_limits()

    def answered(self, pong: Pong) -> None:
        """Take the worker's answer."""
        self._answered = max(self._answered, pong.number)
        self._main_steps = pong.main_steps

    def _on_ping(self) -> None:
        """Tell what the last second has shown, and ask again."""
        self._ping = self._loop.call_later(_PING_S, self._on_ping)
        self._emit(WorkerProgress(self._answered == self._asked, self._main_steps))
        if self._answered == self._asked:
            self._asked += 1
            self._supervisor.send(Lane.thread, Ping(self._asked))

    def new_worker(self) -> None:
        """Forget what the last worker was asked."""
        self._answered = self._asked

    def _watch_limits(self, reason: Reason | None = None, delay_s: float = _LIMITS_S) -> None:
        """Look at the tree from now on, busy or not, while there are limits."""
        is_limited = self._config.memory_bytes or self._config.processes
        later = self._loop.call_later(delay_s, self._on_limits, reason) if is_limited else None
        self._limits = later

    def _on_limits(self, before: Reason | None) -> None:
        """Tell what exceeds a limit, and did so ``before``."""
        reason = self._exceeded()
        is_new = reason is not None and before is None
        self._watch_limits(reason, _SURE_S if is_new else _LIMITS_S)
        if reason is not None and not is_new:
            self._emit(LimitExceeded(reason))

    def _exceeded(self) -> Reason | None:
        config = self._config
        pids = self._supervisor.pids()
        if config.processes and len(pids) > config.processes:
            return over_limit(Why.PROCESSES, len(pids), config.processes)
        if config.memory_bytes and (used := sum(map(_resident_bytes, pids))) > config.memory_bytes:
            return over_limit(Why.MEMORY, used, config.memory_bytes)
        return None


def _resident_bytes(pid: int) -> int:
    """Give the memory of one process that it does not share with a file."""
    if sys.platform != "linux":
        return _resident_elsewhere(pid)
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - ten times a second
            _size, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _resident_elsewhere(pid: int) -> int:
    import psutil  # noqa: PLC0415 - only where there is no /proc

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
