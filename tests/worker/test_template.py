"""A worker forks its template only where the broker wants one by then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from unstuck.templating import LEAVE
from unstuck_worker.template import is_wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 20.0
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give the broker's end and the worker's."""
    broker, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with broker, worker:
        yield broker, worker


def test_what_was_ordered_is_wanted(pair: Pair) -> None:
    broker, worker = pair
    broker.send(LEAVE)
    assert is_wanted(worker.fileno())


@pytest.mark.parametrize("is_ordered", [False, True])
def test_the_worker_waits_for_what_the_broker_says(pair: Pair, is_ordered: bool) -> None:
    broker, worker = pair
    with ThreadPoolExecutor(1) as asking:
        wanted = asking.submit(is_wanted, worker.fileno())
        if is_ordered:
            broker.send(LEAVE)
        else:
            broker.shutdown(socket.SHUT_RDWR)
        assert wanted.result(WAIT_S) is is_ordered


@pytest.mark.parametrize("is_ordered", [False, True])
def test_what_the_broker_has_given_up_is_not_wanted(pair: Pair, is_ordered: bool) -> None:
    broker, worker = pair
    if is_ordered:
        broker.send(LEAVE)
    broker.close()
    assert not is_wanted(worker.fileno())


BROKER = """
import os, socket
from unstuck.templating import FORK, I_AM_SPARE, I_AM_TEMPLATE, I_AM_WORKER, SPARE, WORD
from unstuck_broker.process import Ends, become_subreaper
from unstuck_worker.template import leave_template

become_subreaper()
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.settimeout(20)
if leave_template(theirs.detach(), os.getpid(), lambda: True):
    os._exit(0)  # A worker.


def hear(who):
    said, pid = WORD.unpack(ours.recv(WORD.size))
    assert said == who, (said, who)
    return pid


hear(I_AM_TEMPLATE)
ours.send(SPARE)
spare = hear(I_AM_SPARE)
ours.send(SPARE)
ends = Ends()
socket.send_fds(ours, [FORK], ends.worker_fds())
assert hear(I_AM_WORKER) == spare
ours.send(SPARE)
assert hear(I_AM_SPARE) != spare
print("done")
"""


def test_a_spare_that_is_ordered_twice_is_one_and_becomes_the_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKER],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=WAIT_S * 2,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
