"""Cells that would take any kernel from its user: each is ended, answered once, and forgotten."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from e2e.processes import awake, forks
from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ours

GRACE_S = 0.6
SETTINGS = (
    "interrupt_policy=always",
    "interrupt_hard_s=0.2",
    f"interrupt_grace_s={GRACE_S}",
    "memory_bytes=1000000000",
)
LOAD_FACTOR = 5
"""The promise is grace plus 0.5 s on an idle machine; tests share theirs with others."""
CONTROL_S = 3.0
INTERRUPTED = frozenset({"KeyboardInterrupt"})
DIED = frozenset({"WorkerDied"})


@dataclass(frozen=True)
class Hostile:
    """A cell, and how it may end."""

    code: str
    enames: frozenset[str] = INTERRUPTED
    is_endless: bool = True
    """It runs until it is interrupted."""
    says: str = ""
    """What the error's text has to name."""


IGNORING_CHILD = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    " print('ignores', flush=True); time.sleep(100)"
)
CELLS = {
    "an endless loop": Hostile("while True: pass"),
    "repeat in C": Hostile("import itertools\nmax(itertools.repeat(1))"),
    "a long sum in C": Hostile("sum(range(10**11))"),
    "a catastrophic regex": Hostile("import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')"),
    "a huge power": Hostile("10**10**8"),
    "SIGINT ignored": Hostile(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    ),
    "the SIGINT handler replaced": Hostile(
        "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\nwhile True: pass"
    ),
    "BaseException swallowed": Hostile(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    "time.sleep": Hostile("import time\ntime.sleep(100)"),
    "asyncio.sleep": Hostile("import asyncio\nawait asyncio.sleep(100)"),
    "a deadlock": Hostile(
        "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"
    ),
    "input": Hostile("input('never answered')"),
    "a child that ignores SIGINT": Hostile(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {IGNORING_CHILD!r}])"
    ),
    "a fork that keeps fd 1": Hostile(
        "import os, time\nif os.fork() == 0:\n    time.sleep(100)\nwhile True: pass"
    ),
    "a print flood": Hostile("while True: print('x' * 1000)"),
    "a megabyte from C with the GIL held": Hostile(
        "import ctypes\nctypes.PyDLL(None).write(1, b'x' * 1000000, 1000000)\nwhile True: pass"
    ),
    "ten thousand threads": Hostile(
        "import threading\n"
        "release = threading.Event()\n"
        "try:\n"
        "    for _ in range(10_000):\n"
        "        threading.Thread(target=release.wait, args=(100,), daemon=True).start()\n"
        "except RuntimeError:\n"
        "    pass\n"
        "while True: pass"
    ),
    "ten gigabytes under a limit": Hostile(
        "b'x' * 10_000_000_000",
        frozenset({"MemoryError"}),
        is_endless=False,
        says="limit memory_bytes is 1,000 MB",
    ),
    "a segmentation fault": Hostile(
        "import ctypes\nctypes.string_at(0)", DIED, is_endless=False, says="SIGSEGV"
    ),
    "os._exit": Hostile("import os\nos._exit(3)", DIED, is_endless=False, says="exit code 3"),
    "a kill of itself": Hostile(
        "import os\nos.kill(os.getpid(), 9)", DIED, is_endless=False, says="SIGKILL"
    ),
    "a stop of itself": Hostile("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"),
    "a tracee that nobody lets go on": Hostile(
        "import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\nwhile True: pass"
    ),
    "a trace function that raises": Hostile(
        "import sys\n"
        "def trace(*_): raise ValueError('from the trace function')\n"
        "def traced(): pass\n"
        "sys.settrace(trace)\n"
        "traced()",
        frozenset({"ValueError"}),
        is_endless=False,
    ),
    "a broken stdout": Hostile("import sys\nsys.stdout = None\nwhile True: pass"),
    "a finaliser that hangs": Hostile(
        "class Hanging:\n    def __del__(self):\n        while True: pass\nhanging = Hanging()\n"
        "del hanging\nwhile True: pass"
    ),
    "a recursion in C": Hostile(
        "import sys\n"
        "sys.setrecursionlimit(10**9)\n"
        "def recurse(_=0): return sorted([1], key=recurse)\n"
        "recurse()",
        DIED if sys.version_info < (3, 12) else DIED | {"RecursionError"},
        is_endless=False,
    ),
    "every descriptor closed": Hostile(
        "import os\nos.closerange(0, 1000)\nwhile True: pass", DIED, is_endless=False
    ),
    "no thread switches": Hostile(
        "import gc, sys\ngc.freeze()\nsys.setswitchinterval(1000)\nwhile True: pass"
    ),
    "a loop in a thread cell": Hostile("while True: pass"),
}
THREAD_CELLS = {"a loop in a thread cell"}


def begin(kernel: Kernel, name: str) -> Result:
    """Start a cell and wait until its code runs."""
    mode = "##thread\n" if name in THREAD_CELLS else ""
    code = f"{mode}print('begun')\n{CELLS[name].code}"
    result = kernel.execute(code, allow_stdin=True)
    kernel.wait(lambda: "stream" in result.kinds or result.is_complete, "the cell's begin")
    if name == "a child that ignores SIGINT":
        kernel.wait_for_text(result, "ignores")
    return result


def ask_until_it_ends(kernel: Kernel, result: Result, deadline_s: float) -> None:
    """Ask on control while the cell ends; each question has its own deadline."""
    end = time.monotonic() + deadline_s
    while not result.is_complete:
        assert time.monotonic() < end, f"not ended within {deadline_s} s: {result}"
        kernel.request("kernel_info_request", channel="control", deadline_s=CONTROL_S)


@pytest.mark.parametrize("name", CELLS)
def test_a_hostile_cell_is_ended_and_the_kernel_is_there_for_the_next(
    kernel: Kernel, name: str
) -> None:
    hostile = CELLS[name]
    forks(kernel)  # A restart: what comes up after it is there, too.
    before = len(awake(kernel))
    result = begin(kernel, name)
    if hostile.is_endless:
        for _ in range(3):
            kernel.request("kernel_info_request", channel="control", deadline_s=CONTROL_S)
        assert not result.is_complete, "it ended by itself"
        kernel.interrupt()
    ask_until_it_ends(kernel, result, (GRACE_S + 0.5) * LOAD_FACTOR)
    kernel.finish(result)
    assert result.status == "error"
    assert result.content["ename"] in hostile.enames, result
    assert hostile.says in result.content["evalue"]
    assert result.error["ename"] == result.content["ename"]
    assert kernel.run_ok("1 + 1").value == "2"
    kernel.wait(lambda: len(awake(kernel)) <= before, "end of its processes")


def test_the_cells_before_and_after_an_interrupted_one_keep_their_variables(
    kernel: Kernel,
) -> None:
    kernel.run_ok("kept = 42")
    result = begin(kernel, "an endless loop")
    kernel.interrupt()
    kernel.finish(result)
    assert kernel.evaluate("kept") == "42"


def test_a_cell_that_takes_all_descriptors_leaves_the_threads_their_outputs(
    kernel: Kernel,
) -> None:
    kernel.request("restart_request", channel="control")
    kernel.run_ok(
        "import os, resource, threading\n"
        "release = threading.Event()\n"
        "thread = threading.Thread(\n"
        "    target=lambda: release.wait(100) and print('from a thread'), daemon=True\n"
        ")\n"
        "thread.start()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "taken = []\n"
        "try:\n"
        "    while True: taken.append(os.open(os.devnull, os.O_RDONLY))\n"
        "except OSError:\n"
        "    pass"
    )
    kernel.run_ok("pass", metadata={"tags": ["snapshot"]})
    kernel.run_ok("release.set()\nthread.join(5)\nassert not thread.is_alive()")
    kernel.request("complete_request", {"code": "tak", "cursor_pos": 3}, deadline_s=5)


def test_a_cell_that_cancels_all_tasks_cancels_but_its_own(kernel: Kernel) -> None:
    kernel.run_ok("from unstuck import Caller\ncaller = Caller()")
    result = kernel.run(
        "import asyncio\nfor task in asyncio.all_tasks(): task.cancel()\nawait asyncio.sleep(100)"
    )
    assert result.content["ename"] == "CancelledError"
    assert kernel.evaluate("caller.running and caller is Caller()") == "True"
    assert [m for m in kernel.strays if m["header"]["msg_type"] == "stream"] == []


def test_the_caller_of_the_main_thread_is_made_again_when_a_cell_has_ended_it(
    kernel: Kernel,
) -> None:
    kernel.run_ok("from unstuck import Caller\nCaller().stop(force=True)")
    again = "await Caller().call_soon(lambda: 'here again')"
    kernel.wait(lambda: kernel.run(again).status == "ok", "Caller")


def test_a_worker_whose_event_loop_was_broken_is_replaced(kernel: Kernel) -> None:
    result = kernel.run_ok("import asyncio\nasyncio.get_running_loop()._selector.close()")
    kernel.wait_for_text(result, "the event loop cannot run any more: ValueError")
    kernel.wait(lambda: kernel.run("1 + 1").status == "ok", "next worker")
