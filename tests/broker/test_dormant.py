"""Dormant copies as processes: who may report, what kills them, what they cost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from broker.sites import WAIT_S, wait_until
from e2e.spec import SOURCE_PATH
from unstuck.protocol import Promote
from unstuck_broker import copywatch
from unstuck_broker.dormant import Dormant
from unstuck_broker.events import CopyAppeared, CopyGone, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="snapshots need Linux")

COPY = """
import os, socket, sys
from unstuck.codec import Decoder, encode
from unstuck.protocol import CopyReady, ToCopy
address, number, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) or os.getpid()
then, is_spare = sys.argv[4], sys.argv[5] == "spare"
connection = socket.socket(socket.AF_UNIX)
connection.connect(f"\\0{address}")
word = CopyReady(number, pid, "", 1, "promotable", [], [], 0.0, 1, True, [(1, 2)], is_spare)
connection.sendall(b"".join(encode(word)))
if then == "tells":
    (order,) = Decoder(ToCopy).feed(connection.recv(1 << 18))
    print(order.is_guarded, flush=True)
sys.stdin.read() if then != "ends" else None
"""


class Site:
    """A broker's loop with copies that are played by small processes."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.address = os.urandom(16).hex()
        self.events: list[Event] = []
        self.dormant = Dormant(self.loop, self.address, self.events.append)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, number: int, *, pid: int = 0, then: str = "stays", kind: str = "first"
    ) -> subprocess.Popen[bytes]:
        """Start a process that reports as a copy, or as a "spare"."""
        process = subprocess.Popen(
            [sys.executable, "-c", COPY, self.address, str(number), str(pid), then, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": SOURCE_PATH},
        )
        self.processes.append(process)
        return process

    async def wait(self, fact: Callable[[], bool]) -> None:
        """Let the loop run until ``fact`` holds."""
        await wait_until(fact, lambda: self.events)

    def appeared(self) -> list[int]:
        return [event.word.number for event in self.events if isinstance(event, CopyAppeared)]

    def end(self) -> None:
        """End all, and collect what has ended."""
        self.dormant.close()
        for process in self.processes:
            process.kill()
            process.communicate(timeout=WAIT_S)


def run(check: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function with a site."""

    async def main() -> None:
        site = Site()
        try:
            await check(site)
        finally:
            site.end()

    asyncio.run(main())


def test_a_copy_that_reports_is_known_until_it_is_dropped() -> None:
    async def check(site: Site) -> None:
        process = site.start(3)
        await site.wait(lambda: site.appeared() == [3])
        assert site.dormant.pids() == {process.pid}
        assert site.dormant.processes() == {3: [process.pid]}
        assert site.dormant.private == {(1, 2)}
        site.dormant.drop((3, 99))
        await site.wait(lambda: process.poll() is not None)
        assert process.returncode == -9
        assert site.dormant.pids() == frozenset()
        assert not any(isinstance(event, CopyGone) for event in site.events)

    run(check)


def test_a_copy_that_ends_by_itself_is_gone() -> None:
    async def check(site: Site) -> None:
        process = site.start(4, then="ends")
        await site.wait(lambda: CopyGone(4, process.pid) in site.events)
        assert site.dormant.pids() == frozenset()

    run(check)


@pytest.mark.parametrize("kinds", [["first"], ["first", "spare"]])
def test_a_copy_is_told_whether_its_spare_stays(kinds: list[str]) -> None:
    async def check(site: Site) -> None:
        processes: list[subprocess.Popen[bytes]] = []
        for count, kind in enumerate(kinds, 1):
            processes.append(site.start(5, then="tells", kind=kind))
            await site.wait(lambda count=count: site.appeared() == [5] * count)  # type: ignore[misc]
        first, *spares = processes
        process = site.dormant.promote(5, Promote(0, 0, 0, {}))
        process.close()
        assert first.stdout is not None
        assert first.stdout.readline().split() == [str(bool(spares)).encode()]
        assert process.pid == first.pid
        assert site.dormant.pids() == {spare.pid for spare in spares}
        site.dormant.drop((5,))
        for spare in spares:
            await site.wait(lambda spare=spare: spare.poll() is not None)  # type: ignore[misc]
        assert first.poll() is None

    run(check)


def test_a_copy_is_dropped_with_its_spare() -> None:
    async def check(site: Site) -> None:
        processes = [site.start(5)]
        await site.wait(lambda: site.appeared() == [5])
        processes.append(site.start(5, kind="spare"))
        await site.wait(lambda: site.appeared() == [5, 5])
        site.dormant.drop((5,))
        for process in processes:
            await site.wait(lambda process=process: process.poll() is not None)  # type: ignore[misc]
        assert site.dormant.processes() == {}

    run(check)


def test_what_a_copy_shares_with_its_spare_is_what_it_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The worker has written anew 60 of 100 bytes; all three share the rest.
    copy = copywatch.Memory(60 // 2 + 40 // 3, 0, 100)
    known = {1: copywatch.Memory(60 + 40 // 3, 60, 100), 2: copy, 3: copy}
    monkeypatch.setattr(copywatch, "read_memory", known.__getitem__)
    measured = copywatch.measure({7: [2, 3]}, 1, 10**9)
    assert measured is not None
    assert measured.memory[7] == measured.total_bytes
    assert 55 <= measured.total_bytes <= 60


def test_who_reports_for_another_process_is_killed() -> None:
    async def check(site: Site) -> None:
        process = site.start(5, pid=1)
        await site.wait(lambda: process.poll() is not None)
        assert process.returncode == -9
        assert site.events == []

    run(check)


def test_a_copy_that_is_expected_is_waited_for_but_not_for_long() -> None:
    async def check(site: Site) -> None:
        called: list[bool] = []
        assert not site.dormant.comes(lambda: called.append(True))
        site.dormant.expect(1)
        assert site.dormant.comes(lambda: called.append(True))
        await site.wait(lambda: called == [True])
        await site.wait(lambda: not site.dormant.comes(lambda: None))

    run(check)


def test_copies_end_when_the_broker_listens_no_more() -> None:
    async def check(site: Site) -> None:
        process = site.start(6)
        await site.wait(lambda: site.appeared() == [6])
        site.dormant.close()
        await site.wait(lambda: process.poll() is not None)

    run(check)


def test_the_cost_of_copies_is_measured_beside_their_worker() -> None:
    async def check(site: Site) -> None:
        process = site.start(7)
        await site.wait(lambda: site.appeared() == [7])
        measured = copywatch.measure(site.dormant.processes(), os.getpid(), 10**9)
        assert measured is not None
        assert measured.budget_bytes == 10**9
        rss = psutil.Process(process.pid).memory_info().rss
        assert 0 < measured.memory[7] <= rss
        assert measured.total_bytes >= measured.memory[7]
        site.dormant.drop((7,))
        await site.wait(lambda: process.poll() is not None)
        assert copywatch.measure({7: [process.pid]}, os.getpid(), 0) is None

    run(check)


def test_without_a_setting_copies_may_cost_a_share_of_the_machine() -> None:
    measured = copywatch.measure({1: [os.getpid()]}, os.getpid(), 0)
    assert measured is not None
    total_bytes, free_bytes = copywatch.read_machine()
    assert 0 < free_bytes <= total_bytes
    assert measured.budget_bytes <= total_bytes // 4
