"""``##process`` cells: what goes along, what comes back, and how one ends that does not want to."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from unstuck.protocol import StreamName
from unstuck.typing import RunMode

if TYPE_CHECKING:
    from worker.broker_double import Outputs, WorkerDouble
    from worker.conftest import StartWorker

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")

HANG = (
    "import ctypes; m = ctypes.create_string_buffer(64); c = ctypes.PyDLL(None)\n"
    "c.pthread_mutex_lock(m); print('it runs')\nc.pthread_mutex_lock(m)"
)
"""C code that holds the GIL, until its process is killed."""


def start(worker: WorkerDouble, code: str) -> int:
    return worker.submit(f"##process\n{code}", mode=RunMode.process)


def run(worker: WorkerDouble, code: str) -> Outputs:
    return worker.wait(start(worker, code), 60)


def start_and_await(worker: WorkerDouble, code: str) -> int:
    """Start a cell and wait until it has printed that it runs."""
    job = start(worker, f"print('it runs')\n{code}")
    worker.wait_for(lambda: "it runs" in worker.jobs[job].text(), 60)
    return job


def test_a_cell_runs_in_another_process_and_its_outputs_come(worker: WorkerDouble) -> None:
    worker.run("import os\npid = os.getpid()")
    outputs = run(
        worker, "print(os.getpid() != pid)\nos.system('echo from a shell')\ndisplay(1)\n6 * 7"
    )
    assert outputs.text() == "True\nfrom a shell\n"
    assert outputs.result == "42"
    assert len(outputs.published("display_data")) == 1
    assert outputs.reply["status"] == "ok"


def test_what_it_names_goes_along_with_all_that_that_needs(worker: WorkerDouble) -> None:
    worker.run(
        "import math\nfactor = 3\ndef helper(x): return factor * math.floor(x)\n"
        "class Shape:\n    def area(self): return helper(self.side)\n"
        "shape = Shape(); shape.side = 2.5\nsecret = 1"
    )
    outputs = run(worker, "area = shape.area()\nprint('sec' + 'ret' in globals())")
    assert outputs.text() == "False\n"
    assert worker.run("area").result == "6"


def test_what_it_binds_comes_back_and_what_cannot_is_named(worker: WorkerDouble) -> None:
    worker.run("class C: pass\na, gone = [1], 2")
    outputs = run(worker, "b = {'c': C()}; d = b; a = [2]; e = (i for i in a); gone = 3\na")
    assert outputs.text(StreamName.stderr) == (
        "[unstuck] did not come back:\n  e: cannot pickle 'generator' object\n"
    )
    assert worker.run("(a, b is d, type(b['c']) is C, gone)").result == "([2], True, True, 3)"
    assert worker.run("(_, Out[max(Out)])").reply["status"] == "ok"


def test_a_function_that_it_defines_finds_the_variables_here(worker: WorkerDouble) -> None:
    worker.run("level = 1")
    run(worker, "def read(): return level")
    assert worker.run("level = 5\nread()").result == "5"


def test_its_number_is_its_own_and_its_line_is_in_the_history(start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.run("1")
    outputs = run(worker, "'two'")
    assert outputs.reply["execution_count"] == 2
    after = worker.run("(In[2], Out[2])")
    assert after.reply["execution_count"] == 3
    assert after.result == "(\"##process\\n'two'\", 'two')"


def test_the_queue_goes_on_beside_it(worker: WorkerDouble) -> None:
    job = start_and_await(worker, "import time\nwhile True: pass")
    assert worker.run("1 + 1").result == "2"
    worker.interrupt(job)
    assert worker.wait(job).reply["ename"] == "KeyboardInterrupt"


def test_it_starts_while_the_queue_computes(worker: WorkerDouble) -> None:
    busy = worker.submit("import time, os\nwhile not os.path.exists('stop'): time.sleep(0.01)")
    run(worker, "import pathlib; pathlib.Path('stop').touch()")
    assert worker.wait(busy).reply["status"] == "ok"


def test_an_error_in_it_is_an_error_and_what_it_bound_before_is_kept(worker: WorkerDouble) -> None:
    outputs = run(worker, "before = 1\n1 / 0")
    assert outputs.reply["ename"] == "ZeroDivisionError"
    assert outputs.published("error")[0]["ename"] == "ZeroDivisionError"
    assert worker.run("before").result == "1"


def test_an_interrupt_ends_it_alone_and_keeps_what_it_bound(worker: WorkerDouble) -> None:
    beside = worker.submit("import asyncio\nawait asyncio.sleep(0.5)\n'whole'")
    job = start(worker, "bound = 7\nprint('it runs')\nimport time\ntime.sleep(60)")
    worker.wait_for(lambda: "it runs" in worker.jobs[job].text(), 60)
    worker.interrupt(job)
    assert worker.wait(job).reply["ename"] == "KeyboardInterrupt"
    assert worker.wait(beside).result == "'whole'"
    assert worker.run("bound").result == "7"


def test_one_that_hangs_in_c_code_is_killed_alone(worker: WorkerDouble) -> None:
    job = start(worker, HANG)
    worker.wait_for(lambda: "it runs" in worker.jobs[job].text(), 60)
    (child,) = psutil.Process(worker.process.pid).children()
    where = Path(f"/proc/{child.pid}/wchan")
    worker.wait_for(lambda: "futex" in where.read_text())  # Its text is out a moment before.
    worker.interrupt(job)
    worker.interrupt(job, hard=True)
    reply = worker.wait(job).reply
    assert reply["ename"] == "KeyboardInterrupt"
    assert reply["evalue"] == "the process of this cell did not react, and was killed"
    assert worker.run("1").result == "1"
    assert not child.is_running()


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", "signal 9 (SIGKILL)"),
        ("import ctypes; ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_one_that_dies_is_an_error_and_nothing_else_is_lost(
    worker: WorkerDouble, code: str, how: str
) -> None:
    worker.run("kept = 1")
    outputs = run(worker, f"print('said')\n{code}")
    assert outputs.reply["ename"] == "ProcessDied"
    assert outputs.reply["evalue"] == f"the process of this cell has ended: {how}"
    assert outputs.text() == "said\n"
    assert worker.run("kept").result == "1"


def test_what_does_not_go_along_is_named(worker: WorkerDouble) -> None:
    worker.run("import threading\nlock = threading.Lock()")
    outputs = run(worker, "lock")
    assert outputs.text(StreamName.stderr) == (
        "[unstuck] did not go along:\n  lock: cannot pickle '_thread.lock' object\n"
    )
    assert outputs.reply["ename"] == "NameError"


def test_the_process_ends_with_its_worker(start_worker: StartWorker) -> None:
    worker = start_worker()
    start_and_await(worker, "import time\ntime.sleep(60)")
    (child,) = psutil.Process(worker.process.pid).children()
    worker.process.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs([child], timeout=10)
    assert left == []
