"""The worker's life at its lanes: start, stop, and the death of its broker."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from unstuck.protocol import Ready, StreamName
from unstuck.stack import STACK_SIGNAL
from worker.broker_double import DEADLINE_S, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from worker.conftest import StartWorker


def test_a_worker_says_that_it_is_ready(start_worker: StartWorker) -> None:
    worker = start_worker()
    ready = worker.find(Ready)
    assert ready.pid == worker.process.pid
    assert "IPython" in ready.banner


def test_stop_runs_finally_blocks_and_exit_handlers(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker()
    worker.run(
        "import atexit, pathlib, time\natexit.register(lambda: pathlib.Path('exit').touch())"
    )
    job = worker.submit(
        "try:\n    print('busy'); time.sleep(100)\nfinally:\n    pathlib.Path('finally').touch()"
    )
    worker.wait_for(lambda: "busy" in worker.jobs[job].text())
    assert worker.stop() == 0
    assert {"exit", "finally"} <= {path.name for path in tmp_path.iterdir()}


def test_stop_does_not_wait_longer_than_its_grace(start_worker: StartWorker) -> None:
    worker = start_worker()
    job = worker.submit(
        "print('busy')\nwhile True:\n    try:\n        while True: pass\n"
        "    except BaseException: pass"
    )
    worker.wait_for(lambda: "busy" in worker.jobs[job].text())
    worker.stop(grace_s=0.5)


def test_exit_handlers_have_their_grace_where_a_cell_has_replaced_sleep(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker()
    worker.run(
        "import atexit, pathlib, threading, time\ntime.sleep = lambda _: None\n"
        "atexit.register(lambda: threading.Event().wait(0.3) or pathlib.Path('exit').touch())"
    )
    worker.stop()
    assert (tmp_path / "exit").exists()


def test_files_are_flushed_whatever_objects_the_process_holds(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker()
    worker.run(
        "import io, sys, weakref\nclass Gone: pass\n"
        "class Broken(io.TextIOWrapper):\n    def flush(self): raise RuntimeError('broken')\n"
        "sys.held = [weakref.proxy(Gone()), Broken(io.BytesIO())]\n"
        "sys.held.append(open('kept', 'w'))\nsys.held[-1].write('text');"
    )
    assert worker.stop() == 0
    assert (tmp_path / "kept").read_text() == "text"
    assert "farewell" not in worker.piped[StreamName.stderr]


def test_user_threads_do_not_outlive_the_grace(start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.run("import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()")
    worker.stop(grace_s=0.5)


@pytest.mark.parametrize("lane", ["main", "thread"])
def test_rubbish_on_a_lane_ends_the_worker(start_worker: StartWorker, lane: str) -> None:
    worker = start_worker()
    getattr(worker, lane).sendall(b"\xff" * 64)
    worker.wait_for(lambda: worker.process.poll() is not None)
    assert worker.process.returncode == 1


@pytest.mark.parametrize("lane", ["main", "thread", "output"])
def test_a_closed_lane_ends_the_worker(start_worker: StartWorker, lane: str) -> None:
    worker = start_worker()
    getattr(worker, lane).shutdown(2)
    worker.submit_quietly("print('x' * 1000)")
    worker.process.wait(10)
    assert worker.process.returncode == 1


def test_a_worker_dies_with_its_broker_even_if_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path[:0] = sys.argv[1:]\n"
        "from pathlib import Path\nfrom worker.broker_double import WorkerDouble\n"
        "worker = WorkerDouble.start(Path.cwd())\n"
        "worker.submit('while True: pass')\n"
        "print(worker.process.pid, flush=True); time.sleep(100)"
    )
    paths = [str(ROOT / part) for part in ("tests", "kernel")]
    broker = subprocess.Popen(
        [sys.executable, "-c", code, *paths], cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert broker.stdout is not None
    worker = psutil.Process(int(broker.stdout.readline()))
    broker.kill()
    broker.wait(10)
    broker.stdout.close()
    worker.wait(10)
    assert not worker.is_running()


def test_the_stack_signal_shows_all_threads_also_with_the_gil_held(
    start_worker: StartWorker,
) -> None:
    worker = start_worker()
    job = worker.submit(
        "print('busy')\nimport ctypes\ndef stuck(): ctypes.PyDLL(None).sleep(100)\nstuck()"
    )
    worker.wait_for(lambda: "busy" in worker.jobs[job].text())
    stacks = ""
    end = time.monotonic() + DEADLINE_S
    while "in stuck" not in stacks:
        assert time.monotonic() < end, stacks
        # One that comes while another thread still writes for the one before is passed over.
        worker.signal(STACK_SIGNAL)
        while select.select([worker.stack], [], [], 0.2)[0]:
            stacks += os.read(worker.stack, 1 << 16).decode()
    assert "line 3 in stuck" in stacks
    assert "unstuck_worker/lanethread.py" in stacks


def test_a_crash_leaves_its_stack_on_the_stack_pipe(start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.submit("import ctypes\ndef crash(): ctypes.string_at(0)\ncrash()")
    worker.wait_for(lambda: worker.process.poll() is not None)
    assert worker.process.returncode == -signal.SIGSEGV
    text = os.read(worker.stack, 1 << 16).decode()
    assert "Segmentation fault" in text
    assert "in crash" in text


def test_the_lanes_are_closed_in_child_processes(start_worker: StartWorker) -> None:
    worker = start_worker()
    outputs = worker.run(
        "import subprocess\n"
        "print(subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, text=True,"
        " close_fds=False).stdout)"
    )
    assert "socket" not in outputs.text()


def test_a_worker_whose_parent_is_another_process_ends_at_once(tmp_path: Path) -> None:
    path = os.pathsep.join(str(ROOT / part) for part in ("kernel", "worker"))
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "unstuck_worker", "3", "4", "5", "-1", "1", "2", "-1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
