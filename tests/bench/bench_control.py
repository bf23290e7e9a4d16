"""Control and interrupts while cells misbehave, beside other kernels in one run.

Run it by name: ``python -m pytest -m bench tests/bench/bench_control.py -s``. A peer that is not
installed is left out; one that gives no answer in time gets "never", and a new kernel.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing, contextmanager, suppress
from queue import Empty
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from bench.peers import find_peers
from bench.probe import Probe
from e2e.spec import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from bench.peers import Peer

pytestmark = pytest.mark.bench

PEERS = ("python3", "async", "xpython")
"""Kernelspecs of ipykernel, async-kernel and xeus-python, where they are installed."""
ROUNDS = 3
"""A thousand trips take a quarter of a second, in which these machines are fast or slow."""
TRIPS = 1000
LONGEST_S = 4.0
"""A kernel that is slower makes fewer trips, a tenth at least."""
NEVER_S = 5.0
BEGIN_S = 1.0
START_S = 60.0
STATES = {
    "idle": "",
    "Python loop": "print('begun')\nwhile True: pass",
    "GIL held in C": "import itertools\nprint('begun')\nmax(itertools.repeat(1))",
    "print flood": "while True: print('x' * 1000)",
    "worker stopped": "import os, signal\nprint('begun')\nos.kill(os.getpid(), signal.SIGSTOP)",
}
HOSTILE = {
    "Python loop": "print('begun')\nwhile True: pass",
    "time.sleep": "print('begun')\nimport time; time.sleep(1000)",
    "asyncio.sleep": "print('begun')\nimport asyncio; await asyncio.sleep(1000)",
    "BaseException swallowed": (
        "print('begun')\nwhile True:\n    try:\n        while True: pass\n"
        "    except BaseException: pass"
    ),
    "SIGINT ignored": (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('begun')\n"
        "while True: pass"
    ),
    "GIL held in C": "import itertools\nprint('begun')\nmax(itertools.repeat(1))",
    "regex": "import re\nprint('begun')\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    "worker stopped": STATES["worker stopped"],
}
OUR_SETTINGS = ("--set", "interrupt_policy=always")


class Subject:
    """One kernel that is measured; it is replaced when it does not answer any more."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self.name = name
        self._start()

    def _start(self) -> None:
        self.manager = KernelManager(kernel_name=self.name)
        extra = list(OUR_SETTINGS) if self.name == OURS else []
        self.manager.start_kernel(extra_arguments=extra)
        self.client = self.manager.client()
        self.client.start_channels(hb=False)
        self.client.wait_for_ready(timeout=START_S)

    def end(self) -> None:
        """Kill it."""
        self.client.stop_channels()
        with suppress(psutil.Error):
            for process in psutil.Process(self.pid).children(recursive=True):
                process.kill()
        self.manager.shutdown_kernel(now=True)

    @property
    def pid(self) -> int:
        """Name its process."""
        provisioner: Any = self.manager.provisioner
        return int(provisioner.process.pid)

    def renew(self) -> None:
        """Go on with a kernel of which nothing hangs."""
        self.end()
        self._start()

    def begin(self, code: str) -> str:
        """Execute code and wait for output, which peers cannot send while the GIL is held."""
        msg_id: str = self.client.execute(code, allow_stdin=False)
        end = time.monotonic() + BEGIN_S
        with suppress(Empty):
            while (left_s := end - time.monotonic()) > 0:
                if self.client.get_iopub_msg(timeout=left_s)["msg_type"] == "stream":
                    break
        return msg_id

    def ask(self, kind: str) -> float | None:
        """Ask on control; give the seconds to the answer, None if none came."""
        message = self.client.session.msg(kind, {})
        began_s = time.perf_counter()
        self.client.control_channel.send(message)
        answer = self._answer(self.client.get_control_msg, message["header"]["msg_id"])
        return None if answer is None else time.perf_counter() - began_s

    def reply(self, msg_id: str) -> dict[str, Any] | None:
        """Wait for the reply to an execute request."""
        return self._answer(self.client.get_shell_msg, msg_id)

    def _answer(self, receive: Callable[..., dict[str, Any]], msg_id: str) -> dict[str, Any] | None:
        end = time.monotonic() + NEVER_S
        while (left_s := end - time.monotonic()) > 0:
            try:
                message = receive(timeout=left_s)
            except Empty:
                return None
            if message["parent_header"].get("msg_id") == msg_id:
                return message
        return None

    def run(self, code: str) -> dict[str, Any] | None:
        """Execute code and wait for its reply."""
        return self.reply(self.client.execute(code, allow_stdin=False))


@contextmanager
def started(names: Sequence[str]) -> Generator[list[Subject]]:
    """Start kernels, and end them."""
    subjects: list[Subject] = []
    try:
        for name in names:
            subjects.append(Subject(name))  # noqa: PERF401 - those that started are to be ended
        yield subjects
    finally:
        for subject in subjects:
            subject.end()


@pytest.fixture(scope="module")
def names(kernel_name: str) -> list[str]:
    """Name the kernels that are there; ours is the first."""
    found = KernelSpecManager().find_kernel_specs()
    return [kernel_name, *(name for name in PEERS if name in found)]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Write a markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def milliseconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds * 1e3:.1f}"


def round_trips(peer: Peer, state: str, folder: Path) -> tuple[float, float, float] | None:
    """Measure kernel_info on control in a state: p50, p99 and maximum in ms; None for never."""
    spent: list[float] = []
    with closing(Probe(peer, folder)) as probe:
        if STATES[state]:
            probe.begin(STATES[state], BEGIN_S)
        end_s = time.monotonic() + LONGEST_S
        while len(spent) < TRIPS and (len(spent) < TRIPS // 10 or time.monotonic() < end_s):
            trip_s = probe.ask(NEVER_S)
            if trip_s is None:
                return None
            spent.append(trip_s * 1e3)
    cuts = statistics.quantiles(spent, n=100)
    return cuts[49], cuts[98], max(spent)


def medians(rounds: Sequence[tuple[float, float, float] | None]) -> str:
    """Write the medians of some rounds."""
    known = [one for one in rounds if one is not None]
    if len(known) < len(rounds):
        return "never"
    return " / ".join(f"{statistics.median(column):.2f}" for column in zip(*known, strict=True))


def interrupt(subject: Subject, code: str) -> str:
    """Measure the seconds from an interrupt to the cell's reply; a renewed kernel follows."""
    msg_id = subject.begin(code)
    began_s = time.perf_counter()
    subject.manager.interrupt_kernel()
    answer = subject.reply(msg_id)
    spent_s = time.perf_counter() - began_s
    subject.renew()
    return "never" if answer is None else f"{spent_s:.2f}"


def restart_in_place(subject: Subject) -> float:
    """Measure the seconds from a restart request to the next cell's reply."""
    subject.run("1")
    began_s = time.perf_counter()
    subject.ask("restart_request")
    assert subject.run("1") is not None
    return time.perf_counter() - began_s


def restart(subject: Subject) -> float:
    """Measure the seconds of a launcher's restart to the next cell's reply."""
    began_s = time.perf_counter()
    subject.manager.restart_kernel()
    subject.client.wait_for_ready(timeout=START_S)
    assert subject.run("1") is not None
    return time.perf_counter() - began_s


def crash(subject: Subject) -> float:
    """Measure the seconds from the start of a cell that dies to the next cell's reply."""
    began_s = time.perf_counter()
    assert subject.run("import os; os._exit(1)") is not None
    assert subject.run("1") is not None
    return time.perf_counter() - began_s


def test_control_round_trips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Print p50 / p99 / max in milliseconds, in each state; the kernels take turns."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    peers, _ = find_peers(tmp_path / "packages")
    rows: list[list[str]] = []
    for state in STATES:
        rounds = [[round_trips(one, state, tmp_path) for one in peers] for _ in range(ROUNDS)]
        rows.append([state, *map(medians, zip(*rounds, strict=True))])
    print(table(["control p50 / p99 / max, ms", *(peer.name for peer in peers)], rows))
    assert "never" not in [row[1] for row in rows]


def test_interrupt_to_reply(names: list[str]) -> None:
    """Print the seconds from an interrupt to the reply; ours kills at the grace of 2 s."""
    with started(names) as subjects:
        rows = [
            [cell, *(interrupt(one, code) for one in subjects)] for cell, code in HOSTILE.items()
        ]
    print(table(["interrupt to reply, s", *names], rows))
    assert "never" not in [row[1] for row in rows]


def test_restart_and_crash_to_the_next_reply(kernel_name: str) -> None:
    """Print the milliseconds from a restart in place, and from a crash, to the next reply."""
    with started([kernel_name, "python3"]) as (ours, peer):
        restarts = [restart_in_place(ours) for _ in range(10)]
        crashes = [crash(ours) for _ in range(10)]
        peers = [restart(peer) for _ in range(3)]
    rows = [
        ["restart to next reply", *map(milliseconds, map(statistics.median, (restarts, peers)))],
        ["crash to next reply", milliseconds(statistics.median(crashes)), "never by itself"],
    ]
    print(table(["median, ms", kernel_name, "ipykernel"], rows))
    assert statistics.median(restarts) < statistics.median(peers)
