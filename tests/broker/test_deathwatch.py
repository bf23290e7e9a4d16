"""The look at a process that may be dying."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.spec import SOURCE_PATH
from unstuck_broker.deathwatch import DeathWatch, exit_status
from unstuck_broker.process import SYNC_BYTES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

WAIT_S = 20.0
TRIES = 5
LARGE = """
import sys
data = bytearray(b"x") * (800 << 20)
print("begun", flush=True)
sys.stdin.readline()
"""
HOLDER = """
import sys, threading
from unstuck.lifeline import hold
def run():
    print("begun", flush=True)
    sys.stdin.readline()
    hold(int(sys.argv[1]))
    print("held", flush=True)
    threading.Event().wait()
threading.Thread(target=run, daemon=True).start()
threading.Event().wait()
"""


def start(code: str, *arguments: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=fds,
        env={**os.environ, "PYTHONPATH": SOURCE_PATH},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


def descriptors(process: subprocess.Popen[bytes]) -> set[tuple[int, int]]:
    found = (path.stat() for path in Path(f"/proc/{process.pid}/fd").iterdir())
    return {(status.st_dev, status.st_ino) for status in found}


def statuses_until_the_end(
    process: subprocess.Popen[bytes], private: set[tuple[int, int]]
) -> set[int | None]:
    """Kill a process and look at it until its end can be seen."""
    process.kill()
    seen: set[int | None] = set()
    while process.poll() is None:
        seen.add(exit_status(process.pid, private))
    process.communicate(timeout=WAIT_S)
    return seen


def test_a_large_process_is_seen_to_die_before_its_end() -> None:
    for _ in range(TRIES):  # The system may give back the memory while we do not run.
        process = start(LARGE)
        private = descriptors(process)
        assert exit_status(process.pid, private) is None, "it runs"
        seen = statuses_until_the_end(process, private)
        assert seen <= {None, signal.SIGKILL}
        if signal.SIGKILL in seen:
            return
    raise AssertionError("its death was never seen")


def test_who_holds_what_others_may_want_is_waited_for() -> None:
    process = start(LARGE)
    private = descriptors(process)
    private.pop()
    assert statuses_until_the_end(process, private) == {None}


def test_a_process_that_is_gone_has_no_status() -> None:
    process = start(LARGE)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert exit_status(process.pid, descriptors(process)) is None, "a zombie"
    process.communicate(timeout=WAIT_S)
    assert exit_status(process.pid, set()) is None


def test_a_worker_is_watched_once_it_holds_its_word() -> None:
    async def check() -> None:
        page = os.memfd_create("page")
        os.ftruncate(page, SYNC_BYTES)
        begun = asyncio.Event()
        watch = DeathWatch(asyncio.get_running_loop(), page, begun.set)
        process = start(HOLDER, str(page), fds=(page,))
        try:
            watch.begin(looks=1)  # Too early.
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"held\n"
            watch.begin()
            watch.begin()
            await asyncio.sleep(0)
            assert not begun.is_set()
            began_s = time.monotonic()
            process.kill()
            await asyncio.wait_for(begun.wait(), WAIT_S)
            assert time.monotonic() - began_s < WAIT_S
        finally:
            process.kill()
            process.communicate(timeout=WAIT_S)
            os.close(page)

    asyncio.run(check())
