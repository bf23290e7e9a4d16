"""Measure all kernels in one run, interleaved: ``python tests/bench/run.py``."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    ROOT = Path(__file__).parents[2]
    sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "kernel", "broker", "worker")]

from bench.client import Client
from bench.measures import MEASURES, launch
from bench.peers import find_peers
from bench.table import Samples, markdown, medians, missed

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measures import Numbers
    from bench.peers import Peer

LAUNCHES = 7
STARTS = 3
SLOW_S = 8.0
"""A measurement that takes longer is not repeated for that kernel, so that the run ends."""


class Bench:
    """One run: samples by row and kernel, and what could not be measured."""

    def __init__(self, folder: Path) -> None:
        """Find the kernels; ``folder`` takes their files."""
        self._folder = folder
        self._peers, absent = find_peers(folder / "packages")
        self.samples: Samples = defaultdict(lambda: defaultdict(list))
        self._slow: set[tuple[str, str]] = set()
        self.notes = [f"{name} is absent: its kernelspec is not installed" for name in absent]

    @property
    def names(self) -> list[str]:
        """Name the kernels that are here."""
        return [peer.name for peer in self._peers]

    def measure(self) -> None:
        """Measure everything."""
        for _ in range(LAUNCHES):
            for peer in self._peers:
                self._take(peer.name, "launch", partial(launch, peer, self._folder))
        clients: dict[str, Client] = {}
        try:
            for peer in self._peers:
                clients[peer.name] = self._start(peer)
            for measure, rounds in MEASURES:
                for _ in range(rounds):
                    for peer in self._peers:
                        taken = partial(measure, clients[peer.name])
                        if not self._take(peer.name, measure.__name__, taken):
                            # A kernel that hangs in one measurement must not spoil the others.
                            clients.pop(peer.name).close()
                            clients[peer.name] = self._start(peer)
        finally:
            for client in clients.values():
                client.close()

    def _start(self, peer: Peer) -> Client:
        """Start a kernel; one that hangs in its start gets another chance.

        Raises:
            TimeoutError: it hangs each time.
        """
        for attempt in range(STARTS):
            client = Client(peer, self._folder)
            try:
                client.hear(client.send("kernel_info_request", {}))
                client.run("1")
            except TimeoutError as error:
                client.close()
                self.notes.append(f"{peer.name}, start: {error}")
                if attempt == STARTS - 1:
                    raise
            else:
                return client
        raise AssertionError("STARTS is 0")

    def _take(self, name: str, what: str, measure: Callable[[], Numbers]) -> bool:
        """Add the numbers of one measurement; one that fails is noted, and ``False``."""
        start_s = time.monotonic()
        if (name, what) in self._slow:
            return True
        try:
            for row, number in measure().items():
                self.samples[row][name].append(number)
            took_s = time.monotonic() - start_s
        except (TimeoutError, AssertionError, KeyError) as error:
            self.notes.append(f"{name}, {what}: {error or type(error).__name__}")
            return False
        if took_s > SLOW_S:
            self._slow.add((name, what))
            self.notes.append(f"{name}, {what}: measured no more, it took {took_s:.0f} s")
        sys.stderr.write(f"{name}: {what} {took_s:.1f} s\n")
        return True


def run() -> tuple[str, list[str]]:
    """Measure; give the table and the targets that were missed."""
    with tempfile.TemporaryDirectory(prefix="unstuck-bench-") as folder:
        os.environ["IPYTHONDIR"] = str(Path(folder, "ipython"))
        bench = Bench(Path(folder))
        bench.measure()
    values = medians(bench.samples)
    notes = [
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores",
        *bench.notes,
    ]
    misses = list(missed(values))
    notes += [f"missed: {miss}" for miss in misses] or ["every target is met"]
    return markdown(values, bench.names, notes), misses


if __name__ == "__main__":
    table, _ = run()
    print(table)
