"""A widget that is updated a thousand times a second, from either side, does not starve the queue.

Threads: the frontend that moves the slider is a client of its own in a thread of its own.
"""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from collections.abc import Generator

    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ours

UPDATES_PER_S = 1000
CELLS = 40
FACTOR = 20
"""A cell may take so many times as long as when nothing else happens."""
UNANSWERED = 50
"""A frontend waits for the answers; ipywidgets' own leaves no more than one open."""
WIDGET = """
import asyncio, threading, time
import ipywidgets
slider = ipywidgets.IntSlider(max=10**9)
seen = []
slider.observe(lambda change: seen.append(change.new), "value")
slider.model_id"""
FLOOD = f"""
is_over = False
def due(began_s):
    return int((time.monotonic() - began_s) * {UPDATES_PER_S})
def flood():
    began_s, n = time.monotonic(), 0
    while not is_over:
        while n < due(began_s):
            n += 1
            slider.value = n
        time.sleep(0.001)
async def flood_in_task():
    began_s, n = time.monotonic(), 0
    while not is_over:
        while n < due(began_s):
            n += 1
            slider.value = n
        await asyncio.sleep(0.001)"""
IN_ORDER = "seen == sorted(set(seen))"


@pytest.fixture
def slider(kernel: Kernel) -> str:
    """Make the widget; give its comm."""
    kernel.is_validating = False
    kernel.run_ok(FLOOD)
    return kernel.run_ok(WIDGET, deadline_s=60).value.strip("'")


def _median_s(kernel: Kernel) -> float:
    """Measure how long one of many cells takes from request to reply."""
    times_s: list[float] = []
    for number in range(CELLS):
        began_s = time.monotonic()
        assert kernel.run_ok(f"{number} + 1").value == str(number + 1)
        times_s.append(time.monotonic() - began_s)
        kernel.forget()
    return statistics.median(times_s)


class Frontend:
    """Moves the slider as often as a test wants, and reads what comes back."""

    def __init__(self, kernel: Kernel, comm_id: str) -> None:
        """Begin at once, in a thread."""
        self._client = kernel.beside()
        self._client.is_validating = False
        self._comm_id = comm_id
        self._is_over = threading.Event()
        self.sent = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._move()
        except BaseException as error:  # noqa: BLE001  (the test's own thread raises it)
            self.failure = error

    def _move(self) -> None:
        client, began_s = self._client, time.monotonic()
        open_moves: list[Result] = []
        while not self._is_over.is_set():
            due = int((time.monotonic() - began_s) * UPDATES_PER_S)
            while self.sent < due and len(open_moves) < UNANSWERED:
                self.sent += 1
                data = {"method": "update", "state": {"value": self.sent}, "buffer_paths": []}
                content = {"comm_id": self._comm_id, "data": data}
                open_moves.append(client.send("comm_msg", content))
            client.forget()
            open_moves = [move for move in open_moves if not move.is_complete]
        for move in open_moves:
            client.finish(move)

    def end(self) -> None:
        """Stop moving, and wait until all has been answered."""
        self._is_over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._client.client.stop_channels()
        if self.failure is not None:
            raise self.failure


@contextmanager
def _moving(kernel: Kernel, comm_id: str) -> Generator[Frontend]:
    frontend = Frontend(kernel, comm_id)
    try:
        yield frontend
    finally:
        frontend.end()


def test_cells_are_answered_while_a_frontend_moves_a_slider(kernel: Kernel, slider: str) -> None:
    alone_s = _median_s(kernel)
    with _moving(kernel, slider) as frontend:
        beside_s = _median_s(kernel)
    assert kernel.evaluate(f"len(seen) == {frontend.sent} and {IN_ORDER}") == "True"
    assert frontend.sent > CELLS
    assert beside_s < FACTOR * alone_s


@pytest.mark.parametrize(
    "start", ["threading.Thread(target=flood).start()", "asyncio.create_task(flood_in_task())"]
)
def test_cells_are_answered_while_the_kernel_moves_a_slider(
    kernel: Kernel, slider: str, start: str
) -> None:
    alone_s = _median_s(kernel)
    starter = kernel.beside()  # The flood is not kept as an answer to a request of ours.
    starter.run_ok(f"{start};")
    starter.client.stop_channels()
    beside_s = _median_s(kernel)
    kernel.run_ok("is_over = True")
    assert int(kernel.evaluate("len(seen)")) > CELLS
    assert kernel.evaluate(IN_ORDER) == "True"
    assert beside_s < FACTOR * alone_s


def test_a_cell_that_awaits_goes_on_while_a_frontend_moves_a_slider(
    kernel: Kernel, slider: str
) -> None:
    code = "for n in range(100): await asyncio.sleep(0)\nlen(seen)"
    with _moving(kernel, slider):
        counts = [int(kernel.run_ok(code).value) for _ in range(5)]
    assert counts == sorted(counts)
