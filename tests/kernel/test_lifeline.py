"""The word of shared memory that tells of a process's death."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from e2e.spec import SOURCE_PATH
from unstuck.lifeline import Lifeline, hold

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="robust futexes are Linux's")

WAIT_S = 20.0
HOLDER = """
import sys, threading
from unstuck.lifeline import hold
def run():
    hold(int(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.readline()
thread = threading.Thread(target=run, daemon=True)
thread.start()
thread.join()
print("over", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def page() -> Generator[int]:
    descriptor = os.memfd_create("page")
    os.ftruncate(descriptor, os.sysconf("SC_PAGE_SIZE"))
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def holder(page: int) -> Generator[subprocess.Popen[bytes]]:
    """A process whose thread holds the word."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(page)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(page,),
        env={**os.environ, "PYTHONPATH": SOURCE_PATH},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate(timeout=WAIT_S)


def begin_to_wait(lifeline: Lifeline) -> tuple[threading.Thread, list[bool]]:
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(lifeline.wait()), daemon=True)
    thread.start()
    return thread, results


def test_the_kill_of_its_holder_ends_the_wait(page: int, holder: subprocess.Popen[bytes]) -> None:
    lifeline = Lifeline(page)
    assert lifeline.is_held()
    thread, results = begin_to_wait(lifeline)
    thread.join(0.2)
    assert results == []
    holder.kill()
    thread.join(WAIT_S)
    assert results == [True]
    assert lifeline.wait(), "who comes late hears it as well"


def test_the_end_of_the_thread_alone_ends_the_wait(
    page: int, holder: subprocess.Popen[bytes]
) -> None:
    thread, results = begin_to_wait(Lifeline(page))
    holder.communicate(b"\n", timeout=WAIT_S)
    thread.join(WAIT_S)
    assert results == [True]


def test_a_word_that_nobody_holds_is_not_waited_for(page: int) -> None:
    lifeline = Lifeline(page)
    assert not lifeline.is_held()
    assert not lifeline.wait()


def test_without_a_page_nothing_is_held() -> None:
    hold(-1)
    hold(os.open(os.devnull, os.O_RDONLY))  # It cannot be mapped.
