"""Long random runs of cells, some of which are fatal: no variable differs from a run without them.

``UNSTUCK_TEST_SNAPSHOT_CELLS`` makes them longer, ``UNSTUCK_TEST_SNAPSHOT_SEED`` repeats one.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from e2e.snapshots import ON_LINUX, account, wait_for_snapshot, wait_for_snapshot_of

if TYPE_CHECKING:
    from conftest import StartKernel
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ON_LINUX

CELLS = int(os.environ.get("UNSTUCK_TEST_SNAPSHOT_CELLS", "60"))
SEED = int(os.environ.get("UNSTUCK_TEST_SNAPSHOT_SEED", "13"))

FATAL = (
    "import os; os.kill(os.getpid(), 9)",
    "import os; os._exit(7)",
    "import os; os.abort()",
    "import ctypes; ctypes.string_at(0)",
)


class Model:
    """What the variables must be: a run without the fatal cells."""

    def __init__(self, kernel: Kernel) -> None:
        """Begin with empty variables in ``kernel``."""
        self.random = random.Random(SEED)
        self.kernel = kernel
        self.log: list[int] = []
        self.total = 0
        kernel.run_ok("log, total, table = [], 0, {}")

    def step(self, number: int) -> None:
        """Run a cell that changes variables."""
        amount = self.random.randrange(100)
        code = f"log.append({number}); total += {amount}; table[{number}] = {amount}"
        self.kernel.run_ok(code)
        self.log.append(number)
        self.total += amount

    def die(self) -> Result:
        """Run a cell that changes variables and dies."""
        fatal = self.random.choice(FATAL)
        return self.kernel.run(f"log.append(-1); total += 1; table.clear()\n{fatal}")

    def check(self) -> None:
        """Compare the kernel's variables with the model's."""
        told = self.kernel.run_ok("print(log, total, list(table) == log, sum(table.values()))")
        assert told.stdout == f"{self.log} {self.total} True {self.total}\n"


def test_with_always_no_variable_ever_differs_from_a_run_without_the_fatal_cells(
    start_kernel: StartKernel,
) -> None:
    model = Model(start_kernel(settings=["snapshots=always"]))
    for number in range(CELLS):
        model.step(number)
        if number % 10 == 9:
            assert account(model.die())["missing_cells"] == []
            model.check()


def test_with_auto_and_a_client_that_pauses_no_variable_ever_differs(
    start_kernel: StartKernel,
) -> None:
    model = Model(start_kernel())
    for number in range(CELLS):
        model.step(number)
        if number % 10 == 9:
            wait_for_snapshot(model.kernel)
            assert account(model.die())["missing_cells"] == []
            model.check()


def test_with_auto_and_no_pause_the_cells_whose_effects_are_missing_are_named(
    start_kernel: StartKernel,
) -> None:
    kernel = start_kernel()
    chance = random.Random(SEED)
    wait_for_snapshot_of(kernel, "log = []")
    log: list[int] = []
    for number in range(CELLS):
        if number % 10 == 9:
            result = kernel.run(f"log.append(-1)\n{chance.choice(FATAL)}")
            missing = account(result)["missing_cells"]
            log = [cell for cell in log if cell not in missing]
            named = [int(cell) for cell in kernel.run_ok("print(*log)").stdout.split()]
            assert named == log, f"cells {missing} were named as missing"
        else:
            code = "log.append(get_ipython().execution_count - 1)"
            log.append(kernel.run_ok(code).content["execution_count"])
