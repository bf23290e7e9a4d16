"""Snapshots against real kernels: what a cell kills comes back, and what does not is named."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING

import psutil
import pytest

from e2e.processes import GIL_HELD, copies, live, spares, wait_until_gone, worker
from e2e.snapshots import ON_LINUX, account, hang, rows, wait_for_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import StartKernel
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ON_LINUX

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
    assert "The variables are as they were before this cell" in result.stderr
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


def test_a_thread_cell_that_hangs_right_after_two_deaths_costs_nothing_but_itself(
    kernel: Kernel,
) -> None:
    kernel.run_ok("x = [1, 2]")
    wait_for_snapshot(kernel)
    for _ in range(2):
        assert account(kernel.run("import os; os.abort()"))["missing_cells"] == []
    told = account(hang(kernel, f"##thread\nx.clear()\n{GIL_HELD}"))
    assert (told["missing_cells"], told["lost"]) == ([], [])
    assert kernel.evaluate("x") == "[1, 2]"


def test_a_large_session_survives_one_death_right_after_another(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    kernel.run_ok("data = bytearray(b'x') * (400 << 20)")
    wait_for_snapshot(kernel)
    kernel.wait(lambda: bool(spares(kernel)), "spare")
    for _ in range(4):
        told = account(kernel.run("data[0] = 0; import os; os.abort()"))
        assert told["missing_cells"] == []
    assert kernel.evaluate("(data[0], len(data))") == str((ord("x"), 400 << 20))


def test_a_lock_of_the_dead_worker_is_free_when_its_copy_goes_on(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    kernel = start_kernel()
    lock = f"import fcntl; held = open({str(tmp_path / 'lock')!r}, 'w'); fcntl.flock(held, 6)"
    kernel.run_ok("data = bytearray(b'x') * (1 << 30)")
    for _ in range(3):
        wait_for_snapshot(kernel)
        kernel.wait(lambda: bool(spares(kernel)), "spare")
        # To give back its memory takes the system longer than it takes to go on with the spare.
        kernel.run(f"{lock}; import os; os.kill(os.getpid(), 9)")
        kernel.run_ok(lock)


def test_a_copy_that_somebody_has_stopped_comes_back(kernel: Kernel) -> None:
    kernel.run_ok("x = 'kept'")
    wait_for_snapshot(kernel)
    for pid in copies(kernel):
        os.kill(pid, signal.SIGSTOP)
    assert account(kernel.run("import os; os.abort()"))["missing_cells"] == []
    assert kernel.evaluate("x") == "'kept'"


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


def test_without_snapshots_everything_is_lost_as_before(start_kernel: StartKernel) -> None:
    kernel = start_kernel(settings=["snapshots=off"])
    kernel.run_ok("x = 1")
    result = kernel.run("import os; os.abort()")
    assert "all variables were lost" in result.content["evalue"]
    assert result.displays == []
    assert kernel.run("x").content["ename"] == "NameError"
    assert kernel.run_ok("%snapshots").stdout == "There is no snapshot.\n"


@pytest.mark.parametrize("policy", ["auto", "off"])  # A copy of the worker, or a fresh one.
def test_a_process_cell_has_no_snapshots_and_says_so_at_once(
    start_kernel: StartKernel, policy: str
) -> None:
    kernel = start_kernel(settings=[f"snapshots={policy}"])
    for line in ("%snapshots", "%rewind", "%snapshot mine", "import unstuck; unstuck.snapshot()"):
        result = kernel.run(f"##process\n{line}")
        assert "here are no snapshots here" in result.content["evalue"], result
    assert not any("mine" in row for row in rows(kernel))


def test_why_the_last_snapshot_was_not_taken_is_told(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.run_ok("x = 1")
    wait_for_snapshot(kernel)
    kernel.run_ok(
        "import sqlite3\nbase = sqlite3.connect('data.db')\nbase.execute('create table t (x)')\n"
        "base.execute('insert into t values (1)')"
    )
    reason = "The last one that was due was not taken: a transaction is open on "

    def is_told_by(magic: str) -> bool:
        return reason in kernel.run_ok(magic).stdout

    kernel.wait(lambda: is_told_by("%unstuck"), "reason")
    assert is_told_by("%snapshots")
    kernel.run_ok("base.commit()")
    wait_for_snapshot(kernel)
    assert not is_told_by("%unstuck")


def test_a_snapshot_whose_memory_is_written_anew_is_dropped_when_it_costs_too_much(
    start_kernel: StartKernel,
) -> None:
    kernel = start_kernel(settings=["snapshot_memory_bytes=50000000", "snapshots=off"])
    kernel.run_ok("data = bytearray(b'1') * 200_000_000\n%snapshot first")
    kernel.wait(lambda: any("first" in row for row in rows(kernel)), "named snapshot")
    kernel.run_ok("data[::4096] = b'2' * len(data[::4096])")
    kernel.wait(lambda: not rows(kernel), "end of the snapshot")
    told = kernel.run_ok("%snapshots").stdout
    assert "snapshots were dropped: they cost more than 50 MB" in told


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
