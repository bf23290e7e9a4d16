"""Snapshots against real kernels: what a cell kills comes back, and what does not is named.

``UNSTUCK_TEST_SNAPSHOT_CELLS`` makes the random runs longer, ``UNSTUCK_TEST_SNAPSHOT_SEED`` repeats
one.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from e2e.processes import GIL_HELD, copies, live, wait_until_gone, worker
from e2e.spec import ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartKernel
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = [
    ours,
    pytest.mark.skipif(sys.platform != "linux", reason="snapshots need Linux"),
]

CELLS = int(os.environ.get("UNSTUCK_TEST_SNAPSHOT_CELLS", "60"))
SEED = int(os.environ.get("UNSTUCK_TEST_SNAPSHOT_SEED", "13"))
MIME_TYPE = "application/vnd.unstuck.recovery+json"
SETTINGS = ("interrupt_hard_s=0.2", "interrupt_grace_s=0.5", "memory_bytes=700000000")
NAMESPACE = """
import json, socket, tempfile, threading, time
class Account:
    def __init__(self, owner): self.owner, self.sum = owner, 0
numbers = list(range(1000))
nested = {"numbers": numbers, "deep": [{"a": 1}]}
file = tempfile.TemporaryFile("w+")
_ = file.write("first line\\nsecond line\\n"), file.seek(0), file.readline()
generator = (number * 2 for number in range(10))
_ = next(generator), next(generator)
double = lambda number: number * 2
account = Account("ada")
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
port = listening.getsockname()[1]
lock = threading.Lock()
_ = lock.acquire()
names = "numbers nested file generator double account listening lock Account json".split()
ids = {name: id(globals()[name]) for name in names}
"""
TABLES = """
import numpy as np, pandas as pd
array = np.arange(200_000.0)
view = array[10:20]
frame = pd.DataFrame({"a": range(100), "b": list("xy" * 50)})
names += ["array", "view", "frame"]
ids |= {name: id(globals()[name]) for name in names}
"""
CHECK_TABLES = """
assert array.sum() == sum(range(200_000)) and view.base is array
assert list(frame["b"]) == list("xy" * 50) and frame["a"].sum() == 4950
assert np.dot(np.ones((300, 300)), np.ones((300, 300)))[0, 0] == 300
"""
HAS_TABLES = find_spec("pandas") is not None
CHECK = """
assert {name: id(globals()[name]) for name in names} == ids
assert numbers == list(range(1000)) and nested["numbers"] is numbers
assert nested["deep"] == [{"a": 1}]
assert file.readline() == "second line\\n"
assert next(generator) == 4
assert double(21) == 42 and account.owner == "ada" and account.sum == 0
assert isinstance(account, Account) and json.loads("[1]") == [1]
with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
    served, _ = listening.accept()
    client.sendall(b"hello")
    assert served.recv(5) == b"hello"
assert lock.locked()
lock.release()
print("all is as it was")
"""
SEGFAULT = "account.sum = 5; numbers.clear(); import ctypes; ctypes.string_at(0)"
KILLED = "account.sum = 5; numbers.clear(); import os; os.kill(os.getpid(), 9)"
MEMORY = "account.sum = 5; numbers.clear(); kept = b'x' * 2_000_000_000; time.sleep(99)"


def rows(kernel: Kernel) -> list[str]:
    """List the snapshots as the user sees them."""
    lines = kernel.run_ok("%snapshots").stdout.splitlines()
    return [line for line in lines[1:] if line[:1].isdigit()]


def wait_for_snapshot(kernel: Kernel) -> None:
    """Wait until a snapshot holds what is there now, as a person does who reads an output."""
    kernel.wait(lambda: any("(now)" in row for row in rows(kernel)), "current snapshot")


def account(result: Result) -> dict[str, Any]:
    """Give the data of the one recovery that a cell tells."""
    (data,) = [bundle[MIME_TYPE] for bundle in result.displays if MIME_TYPE in bundle]
    assert isinstance(data, dict)
    return data


def hang(kernel: Kernel, code: str) -> Result:
    """Let a cell hang in C, and interrupt it once."""
    result = kernel.execute(code)
    kernel.wait_for_text(result, "begun")
    kernel.interrupt()
    return kernel.finish(result)


# --- everything comes back ------------------------------------------------------------------------


def end_by_hang(kernel: Kernel) -> Result:
    return hang(kernel, f"account.sum = 5; numbers.clear()\n{GIL_HELD}")


def end_by_segfault(kernel: Kernel) -> Result:
    return kernel.run(SEGFAULT)


def end_by_kill(kernel: Kernel) -> Result:
    return kernel.run(KILLED)


def end_by_memory(kernel: Kernel) -> Result:
    return kernel.run(MEMORY)


@pytest.mark.parametrize(
    ("end", "ename", "cause"),
    [
        (end_by_hang, "KeyboardInterrupt", "did not react to its interrupt"),
        (end_by_segfault, "WorkerDied", "died by SIGSEGV"),
        (end_by_kill, "WorkerDied", "died by SIGKILL"),
        (end_by_memory, "MemoryError", "the limit memory_bytes"),
    ],
)
def test_every_variable_is_as_it_was_before_the_cell_that_has_died(
    kernel: Kernel, end: Callable[[Kernel], Result], ename: str, cause: str
) -> None:
    kernel.run_ok(NAMESPACE)
    if HAS_TABLES:
        kernel.run_ok(TABLES)
    wait_for_snapshot(kernel)
    kernel.strays.clear()
    result = end(kernel)
    assert result.content["ename"] == ename
    assert cause in result.content["evalue"]
    assert result.content["evalue"].endswith("the variables are as they were before this cell")
    assert result.stderr == ""
    told = account(result)
    assert told["way"] == "promotion"
    assert told["missing_cells"] == []
    assert kernel.run_ok(CHECK).stdout == "all is as it was\n"
    if HAS_TABLES:
        kernel.run_ok(CHECK_TABLES)
    states = [m["content"].get("execution_state") for m in kernel.strays]
    assert "restarting" not in states


def test_the_execution_count_goes_on_after_the_killed_cell(kernel: Kernel) -> None:
    kernel.run_ok("x = 1")
    wait_for_snapshot(kernel)
    killed = kernel.run("import os; os._exit(3)").content["execution_count"]
    assert kernel.run_ok("x").content["execution_count"] == killed + 1


def test_a_widget_s_comm_made_before_the_cell_still_answers(kernel: Kernel) -> None:
    opened = kernel.run_ok(
        "from comm import create_comm\n"
        "heard = []\n"
        "button = create_comm(target_name='t')\n"
        "button.on_msg(lambda message: heard.append(message['content']['data']))"
    )
    comm_id = opened.of("comm_open")[0]["content"]["comm_id"]
    wait_for_snapshot(kernel)
    kernel.run("young = create_comm(target_name='t'); import os; os.kill(os.getpid(), 9)")
    assert list(kernel.request("comm_info_request").content["comms"]) == [comm_id]
    kernel.request("comm_msg", {"comm_id": comm_id, "data": {"click": 1}})
    assert kernel.evaluate("heard") == "[{'click': 1}]"


def test_a_worker_comes_back_again_and_again(kernel: Kernel) -> None:
    kernel.run_ok("count = 0")
    for count in range(1, 4):
        kernel.run_ok("count += 1")
        wait_for_snapshot(kernel)
        assert kernel.run("import os; os.abort()").status == "error"
        assert kernel.evaluate("count") == str(count)


@pytest.mark.skipif(psutil.virtual_memory().available < 6 << 30, reason="needs 6 GB of free memory")
def test_two_gigabytes_come_back(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    kernel.run_ok("data = bytearray(2 << 30); data[::4096] = bytes([7]) * (2 << 18)")
    wait_for_snapshot(kernel)
    told = account(kernel.run("data[::4096] = bytes(2 << 18); import os; os.abort()"))
    assert (told["way"], told["missing_cells"]) == ("promotion", [])
    assert kernel.evaluate("(len(data), data[::4096] == bytes([7]) * (2 << 18))") == (
        f"({2 << 30}, True)"
    )


def test_a_fork_that_hangs_costs_the_worker_and_not_the_variables(
    start_kernel: StartKernel,
) -> None:
    kernel = start_kernel()
    kernel.run_ok("x = 'kept'; import os, time")
    wait_for_snapshot(kernel)
    # A hook of a library, which runs at every fork, and keeps the GIL.
    kernel.run_ok("os.register_at_fork(before=__import__('functools').partial(pow, 3, 10**9))")
    kernel.wait_for_log("its snapshot hung in fork()", deadline_s=30.0)
    assert kernel.evaluate("x") == "'kept'"
    kernel.wait(lambda: any("(now)" in row for row in rows(kernel)), "snapshot of the next worker")


# --- what does not come back is named -------------------------------------------------------------


def test_an_interrupt_asks_first_when_a_thread_would_be_lost(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.run_ok("%unstuck interrupt_grace_s 0.5")
    kernel.run_ok(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), name='poller', daemon=True).start()\n"
        "x = 41"
    )
    wait_for_snapshot(kernel)
    result = kernel.execute(GIL_HELD)
    kernel.wait_for_text(result, "begun")
    kernel.interrupt()
    kernel.wait_for_text(result, "interrupt again to kill it")
    assert "poller" in result.stderr
    kernel.interrupt()
    kernel.finish(result)
    assert any("poller" in name for name in account(result)["lost"])
    assert kernel.evaluate("x") == "41"


def test_a_session_whose_libraries_do_not_survive_a_fork_is_carried_over(
    fresh_kernel: Kernel,
) -> None:
    pytest.importorskip("polars")
    kernel = fresh_kernel
    kernel.run_ok(
        "import polars as pl, sqlite3\n"
        "frame = pl.DataFrame({'a': range(1000)})\n"
        "same = frame\n"
        "total = frame.filter(pl.col('a') > 10).sum()['a'][0]\n"
        "base = sqlite3.connect(':memory:')\n"
        "def double(number): return number * 2"
    )
    wait_for_snapshot(kernel)
    result = kernel.run("frame = None; import os; os.abort()")
    told = account(result)
    assert told["way"] == "transplant"
    assert [name for name, _ in told["failed"]] == ["base"]
    (shown,) = [bundle["text/plain"] for bundle in result.displays if MIME_TYPE in bundle]
    assert "Not taken over: base (cannot pickle" in shown
    check = "print(frame.filter(pl.col('a') > 10).sum()['a'][0] == total, same is frame, double(4))"
    assert kernel.run_ok(check).stdout == "True True 8\n"


def test_without_snapshots_everything_is_lost_as_before(start_kernel: StartKernel) -> None:
    kernel = start_kernel(settings=["snapshots=off"])
    kernel.run_ok("x = 1")
    result = kernel.run("import os; os.abort()")
    assert "all variables were lost" in result.content["evalue"]
    assert result.displays == []
    assert kernel.run("x").content["ename"] == "NameError"
    assert kernel.run_ok("%snapshots").stdout == "There is no snapshot.\n"


# --- rewind ---------------------------------------------------------------------------------------


def test_a_rewind_undoes_the_last_cell(kernel: Kernel) -> None:
    kernel.run_ok("x = [1]")
    wait_for_snapshot(kernel)
    kernel.run_ok("x.append(2)")
    wait_for_snapshot(kernel)
    result = kernel.run_ok("%rewind")
    assert "Going back to after cell" in result.stdout
    assert account(result)["is_rewind"]
    assert kernel.evaluate("x") == "[1]"


def test_a_rewind_goes_to_a_name_and_back_to_another(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.run_ok("x = 'clean'")
    kernel.run_ok("%snapshot clean")
    kernel.wait(lambda: any("clean" in row for row in rows(kernel)), "named snapshot")
    kernel.run_ok("x = 'trained'")
    kernel.run_ok("import unstuck; unstuck.snapshot('trained')")
    kernel.wait(lambda: any("trained" in row for row in rows(kernel)), "named snapshot")
    kernel.run_ok("x = 'broken'")
    kernel.run_ok("%rewind clean")
    assert kernel.evaluate("x") == "'clean'"
    kernel.run_ok("%rewind trained")
    assert kernel.evaluate("x") == "'trained'"


@pytest.mark.parametrize("library", ["", "polars"])
def test_a_rewind_goes_to_a_name_again_and_again(start_kernel: StartKernel, library: str) -> None:
    kernel = start_kernel(settings=SETTINGS)
    if library:
        pytest.importorskip(library)
        kernel.run_ok("import polars as pl; pl.DataFrame({'a': [1]}).filter(pl.col('a') > 0)")
    kernel.run_ok("x = 'clean'\n%snapshot clean")
    for attempt in range(3):
        kernel.wait(lambda: any("clean" in row for row in rows(kernel)), "named snapshot")
        kernel.run_ok(f"x = {attempt}")
        told = account(kernel.run_ok("%rewind clean"))
        is_donor = library and attempt == 0  # Later nothing has used it.
        assert told["way"] == ("transplant" if is_donor else "promotion")
        assert kernel.evaluate("x") == "'clean'"


def test_a_name_that_is_no_string_costs_nothing(kernel: Kernel) -> None:
    kernel.run_ok("import unstuck; x = 5")
    for wrong in ("None", "5"):
        assert kernel.run(f"unstuck.snapshot({wrong})").content["ename"] == "TypeError"
    assert kernel.evaluate("x") == "5"


@pytest.mark.parametrize("policy", ["auto", "off"])  # A copy of the worker, or a fresh one.
def test_a_process_cell_has_no_snapshots_and_says_so_at_once(
    start_kernel: StartKernel, policy: str
) -> None:
    kernel = start_kernel(settings=[f"snapshots={policy}"])
    for line in ("%snapshots", "%rewind", "%snapshot mine", "import unstuck; unstuck.snapshot()"):
        result = kernel.run(f"##process\n{line}")
        assert "here are no snapshots here" in result.content["evalue"], result
    assert not any("mine" in row for row in rows(kernel))


def test_a_copy_that_somebody_has_stopped_comes_back(kernel: Kernel) -> None:
    kernel.run_ok("x = 'kept'")
    wait_for_snapshot(kernel)
    for pid in copies(kernel):
        os.kill(pid, signal.SIGSTOP)
    assert account(kernel.run("import os; os.abort()"))["missing_cells"] == []
    assert kernel.evaluate("x") == "'kept'"


def test_a_rewind_to_a_name_that_is_not_there_changes_nothing(kernel: Kernel) -> None:
    kernel.run_ok("x = 5")
    result = kernel.run("%rewind nowhere")
    assert "there is no snapshot 'nowhere'" in result.stderr + str(result.content)
    assert kernel.evaluate("x") == "5"


def test_cells_behind_a_rewind_run_in_the_old_state(kernel: Kernel) -> None:
    kernel.run_ok("x = 1")
    wait_for_snapshot(kernel)
    kernel.run_ok("x = 2")
    wait_for_snapshot(kernel)
    rewinding = kernel.execute("%rewind")
    behind = kernel.execute("x")
    assert kernel.finish(rewinding).status == "ok"
    assert kernel.finish(behind).value == "1"


# --- nothing is left, nothing is in the way -------------------------------------------------------


def test_copies_end_with_the_kernel_and_with_a_broker_that_is_killed(
    start_kernel: StartKernel,
) -> None:
    for is_killed in (False, True):
        kernel = start_kernel()
        kernel.run_ok("x = 1")
        wait_for_snapshot(kernel)
        processes = live(kernel)
        assert len(processes) >= 3
        if is_killed:
            os.kill(kernel.pid, signal.SIGKILL)
        else:
            kernel.request("shutdown_request", {"restart": False}, channel="control")
        wait_until_gone(processes)


def test_copies_are_bounded_however_many_cells_run(kernel: Kernel) -> None:
    for number in range(8):
        kernel.run_ok(f"x = {number}")
        wait_for_snapshot(kernel)
    kernel.wait(lambda: len(live(kernel)) <= 4, "end of the copies that nobody needs")


def test_a_restart_drops_the_copies(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.run_ok("x = 1")
    kernel.run_ok("%snapshot kept")
    kernel.wait(lambda: any("kept" in row for row in rows(kernel)), "named snapshot")
    kernel.request("restart_request", channel="control")
    content = kernel.run("x").content
    assert content["ename"] == "NameError", content
    assert not any("kept" in row for row in rows(kernel))


def test_the_worker_is_the_same_process_while_nothing_dies(kernel: Kernel) -> None:
    before = worker(kernel).pid
    kernel.run_ok("x = 1")
    wait_for_snapshot(kernel)
    assert worker(kernel).pid == before
    assert psutil.Process(before).children() == []


# --- long random runs -----------------------------------------------------------------------------

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


def wait_for_snapshot_of(kernel: Kernel, code: str) -> None:
    """Run a cell and wait for its snapshot."""
    kernel.run_ok(code)
    wait_for_snapshot(kernel)
