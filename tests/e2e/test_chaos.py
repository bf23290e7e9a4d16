"""Chaos: three clients, a worker that is killed and stopped at random; the books are balanced.

``UNSTUCK_TEST_CHAOS_CELLS`` makes it longer or shorter, ``UNSTUCK_TEST_CHAOS_SEED`` repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from e2e.processes import awake, template
from e2e.spec import ours

if TYPE_CHECKING:
    from conftest import StartKernel
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ours

CELLS = int(os.environ.get("UNSTUCK_TEST_CHAOS_CELLS", "2000"))
SEED = int(os.environ.get("UNSTUCK_TEST_CHAOS_SEED", "11"))
BATCH = 30
ANSWERED_S = 60.0
GROWTH_BYTES = 30 << 20
OWN_PROCESSES = 4
"""The broker, the worker, the template and its spare."""
CODES = (
    "1 + 1",
    "print('some output' * 100)",
    "import time; time.sleep(0.02)",
    "1 / 0",
    "##task\nimport asyncio\nawait asyncio.sleep(0.01)",
    "##thread\nprint('from a thread')",
    "import subprocess; subprocess.Popen(['sleep', '100'])",
    "import os; os.write(1, b'x' * 1000)",
)


class Chaos:
    """Kills, stops and continues whatever is the worker."""

    def __init__(self, kernel: Kernel, seed: int) -> None:
        """Leave the broker, its template and the spares alone."""
        self.random = random.Random(seed)
        self._broker = psutil.Process(kernel.pid)
        self._spared = template(kernel).pid
        self._stopped: list[psutil.Process] = []
        self.kills = 0

    def strike(self) -> None:
        """Do something to a worker, or nothing."""
        what = self.random.random()
        for one in self._workers():
            with suppress(psutil.NoSuchProcess):
                if what < 0.25:
                    one.send_signal(signal.SIGKILL)
                    self.kills += 1
                elif what < 0.4:
                    one.send_signal(signal.SIGSTOP)
                    self._stopped.append(one)
        if what > 0.6:
            self.forgive()

    def forgive(self) -> None:
        """Let those go on that were stopped."""
        for one in self._stopped:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)
        self._stopped.clear()

    def _workers(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for child in self._broker.children():
            try:
                is_spared = os.getsid(child.pid) == self._spared
                if not is_spared and "unstuck_worker" in " ".join(child.cmdline()):
                    found.append(child)
            except (psutil.Error, ProcessLookupError):
                continue
        return found


def run_batch(kernels: list[Kernel], chaos: Chaos) -> None:
    """Send cells from all clients while the worker is struck; see all of them answered."""
    results: list[tuple[Kernel, Result]] = []
    for _ in range(BATCH):
        kernel = chaos.random.choice(kernels)
        stops = chaos.random.random() < 0.3
        result = kernel.execute(chaos.random.choice(CODES), stop_on_error=stops)
        results.append((kernel, result))
        if chaos.random.random() < 0.3:
            chaos.strike()
            for one in kernels:
                one.wait(lambda: True, "nothing")
    chaos.forgive()
    end = time.monotonic() + ANSWERED_S
    for kernel, result in results:
        # It sees to it that there is one reply, one busy and one idle: a second one fails.
        kernel.finish(result, deadline_s=end - time.monotonic())


def leave_nothing(kernel: Kernel) -> None:
    """Restart the worker, and see that nothing is left of what cells have started.

    Their processes hold pipes that the broker reads for as long as they live.
    """
    kernel.request("restart_request", channel="control")
    kernel.run_ok("pass")
    kernel.wait(lambda: len(awake(kernel)) <= OWN_PROCESSES, "end of the cells' processes")


def test_no_request_is_lost_or_answered_twice_while_workers_die(
    start_kernel: StartKernel,
) -> None:
    kernel = start_kernel()
    others = [kernel.beside() for _ in range(2)]
    kernels = [kernel, *others]
    try:
        for other in others:
            other.wait_until_ready()
        chaos = Chaos(kernel, SEED)
        broker = psutil.Process(kernel.pid)
        run_batch(kernels, chaos)  # What is loaded once is no leak.
        leave_nothing(kernel)
        before = broker.num_fds(), broker.memory_info().rss
        for _ in range(CELLS // BATCH):
            run_batch(kernels, chaos)
        assert chaos.kills > CELLS // 100
        leave_nothing(kernel)
        for one in kernels:
            assert one.run_ok("1 + 1").value == "2"
        kernel.wait(lambda: broker.num_fds() <= before[0] + 4, "return of the descriptors")
        assert broker.memory_info().rss - before[1] < GROWTH_BYTES
        kernel.wait(
            lambda: all(c.status() != psutil.STATUS_ZOMBIE for c in broker.children()),
            "end of the broker's zombies",
        )
    finally:
        for other in others:
            other.client.stop_channels()
