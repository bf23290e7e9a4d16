"""The worker as snapshots see it: what they ask of it, and how a copy takes its place.

Threads: the main thread's.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NoReturn

from unstuck_worker.snapshots import descriptors, revival

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unstuck.protocol import Donate, Promote
    from unstuck_worker.cellhistory import CellHistory
    from unstuck_worker.interrupt import Interrupts
    from unstuck_worker.lane import OutputLane
    from unstuck_worker.shell import UnstuckShell
    from unstuck_worker.snapshots.fork import Awake

HOLD_S = 0.05
"""How long a snapshot waits for those who write to the lane."""


class Site:
    """One worker."""

    def __init__(
        self,
        *,
        address: str,
        ends: Sequence[int],
        shell: UnstuckShell,
        lane: OutputLane,
        loop: asyncio.AbstractEventLoop,
        interrupts: Interrupts,
        tasks: set[asyncio.Task[None]],
        become_child: Callable[[], None],
        take_place: Callable[[Promote], None],
        announce: Callable[[], None],
        hear: Callable[[], None],
    ) -> None:
        """Describe the worker.

        Args:
            address: where the broker listens for copies.
            ends: the worker's descriptors: 1, 2, main, thread and output lane, page, stacks.
            shell: its shell.
            lane: its output lane.
            loop: its event loop.
            interrupts: its jobs.
            tasks: those that run its jobs.
            become_child: makes a fork of the worker a plain process without lanes.
            take_place: makes a copy the worker, when its descriptors are in place.
            announce: tells the broker that the worker is there.
            hear: starts the lane thread, and with it jobs in threads.
        """
        self.address = address
        self.ends = ends
        self.shell = shell
        self.lane = lane
        self.loop = loop
        self.broker = os.getppid()
        self.history: CellHistory = shell.history_manager
        self._interrupts = interrupts
        self._tasks = tasks
        self._become_child = become_child
        self._take_place = take_place
        self._announce = announce
        self.hear = hear
        self._own_tasks: set[asyncio.Task[Any]] = set()
        self._own_readers = 0

    @property
    def settings(self) -> dict[str, Any]:
        """The kernel's settings, by name."""
        settings: dict[str, Any] = self.shell.kernel.settings
        return settings

    def is_busy(self) -> bool:
        """Say whether a cell of the queue runs, or code of any job in this thread."""
        return self._interrupts.is_main_busy()

    def is_stopping(self) -> bool:
        """Say whether the worker was asked to end."""
        return self._interrupts.is_stopping

    def hold_writers(self) -> bool:
        """Keep other threads from lane and history until `release_writers`: a fork comes.

        Returns:
            whether that was possible at once; else nothing is held.
        """
        if not self.history.acquire():
            return False
        if not self.lane.hold_within(HOLD_S):
            self.history.release()
            return False
        return True

    def release_writers(self) -> None:
        """Let other threads go on."""
        self.lane.release()
        self.history.release()

    def has_jobs(self) -> bool:
        """Say whether a job of the main thread waits for something."""
        return any(not task.done() for task in self._tasks)

    def beside(self) -> list[str]:
        """Name the jobs that run beside the queue: a copy loses them."""
        return self._interrupts.beside()

    def know_own_calls(self) -> None:
        """Take what the loop does now for the worker's own."""
        self._own_tasks = asyncio.all_tasks(self.loop)
        self._own_readers = len(self._readers())

    def _readers(self) -> Any:  # noqa: ANN401
        return self.loop._selector.get_map()  # type: ignore[attr-defined]  # noqa: SLF001

    def has_foreign_calls(self) -> bool:
        """Say whether the event loop has something to do that is not the worker's own."""
        loop: Any = self.loop
        if len(self._readers()) > self._own_readers:
            return True
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # noqa: SLF001
        tasks = asyncio.all_tasks(loop) - self._own_tasks - self._tasks
        return bool(tasks or timers)

    def revive(self, awake: Awake, order: Promote) -> None:
        """Make this copy the worker, which hears nothing by the thread lane until `hear`."""
        descriptors.put_in_place(awake.fds, list(self.ends))
        descriptors.make_again(awake.recipes)
        revival.revive_random(awake.random_state)
        revival.revive_imports()
        self._take_place(order)
        revival.revive_pools()
        revival.keep_open(awake.uncloseable)
        self._announce()
        revival.revive_timers(awake.timers)

    def donate(self, awake: Awake, order: Donate) -> NoReturn:
        """Give the variables to one receiver, and end."""
        try:
            self._become_child()
            revival.revive_random(awake.random_state)
            revival.revive_imports()
            from unstuck_worker.processes.listening import Listening  # noqa: PLC0415  (as below)
            from unstuck_worker.transplant import donor  # noqa: PLC0415  (only a donor needs it)

            with Listening(order.address) as listening:
                connection = listening.accept_within(order.deadline_s)
            if connection is not None:
                with connection:
                    donor.serve(connection, self.shell)
        finally:
            os._exit(0)
