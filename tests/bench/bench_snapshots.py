"""What snapshots cost, and how fast they come back: kernels with and without, in one run.

Run it by name: ``python -m pytest -m bench tests/bench/bench_snapshots.py -s``. The kernels of a
comparison run side by side and take turns, since other work on the machine falls on all of them.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from bench.client import Client
from bench.peers import Peer
from e2e.spec import SOURCE_PATH
from unstuck.kernelspec import make_argv

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.bench

POLICIES = ("off", "auto", "always")
ROUNDS = 12
TRIPS = 100
PIPELINED = 300
SIZES_MB = {50: 50, 500: 500, 2000: 2000}
IDLE_S = 0.3
"""Longer than a worker waits before it takes a snapshot in a pause."""
DICTS = "data = [{'number': n, 'square': n * n} for n in range(1_500_000)]"
WALK = "total = 0\nfor entry in data: total += entry['number']"
WALKS = 30
BLOCKS = 2
KILLS = 10


@contextmanager
def started(folder: Path, *policies: str) -> Generator[dict[str, Client]]:
    """Start one kernel for each policy."""
    with ExitStack() as stack:
        clients: dict[str, Client] = {}
        for policy in policies:
            argv = (*make_argv(), "--set", f"snapshots={policy}")
            clients[policy] = Client(Peer(policy, argv, {"PYTHONPATH": SOURCE_PATH}), folder)
            stack.callback(clients[policy].close)
            clients[policy].run("import os")
        yield clients


def show(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(f"{text:>{w}}" for text, w in zip(row, widths, strict=True)) for row in rows]
    print(f"\n{title}", *lines, sep="\n  ")


def trips(client: Client, count: int) -> list[float]:
    """Time ``pass``, one after another; in milliseconds."""
    times: list[float] = []
    for _ in range(count):
        began_s = time.perf_counter()
        client.run("pass")
        times.append((time.perf_counter() - began_s) * 1000)
    return times


def pipelined(client: Client, count: int) -> float:
    """Time ``pass``, all sent at once; in milliseconds for each."""
    began_s = time.perf_counter()
    client.hear(*[client.execute("pass") for _ in range(count)])
    return (time.perf_counter() - began_s) * 1000 / count


def worker_pid(client: Client) -> int:
    """Give the process that runs the cells."""
    content = {
        "code": "", "silent": True, "store_history": False, "allow_stdin": False,
        "stop_on_error": True, "user_expressions": {"it": "os.getpid()"},
    }  # fmt: skip
    heard = client.hear(client.send("execute_request", content))
    return int(heard.content["user_expressions"]["it"]["data"]["text/plain"])


def proportional_mb(client: Client) -> float:
    """Give the memory of a kernel's whole tree."""
    root = psutil.Process(client.process.pid)
    tree = [root, *root.children(recursive=True)]
    return float(sum(process.memory_full_info().pss for process in tree)) / 1e6


@pytest.mark.parametrize("size_mb", SIZES_MB)
def test_the_cost_of_a_cell(tmp_path: Path, size_mb: int) -> None:
    with started(tmp_path, *POLICIES) as clients:
        for client in clients.values():
            client.run(f"data = bytearray({size_mb} << 20)\ndata[::4096] = b'x' * ({size_mb} << 8)")
            trips(client, 20)
        one: dict[str, list[float]] = {policy: [] for policy in clients}
        many: dict[str, list[float]] = {policy: [] for policy in clients}
        for _ in range(ROUNDS):
            for policy, client in clients.items():
                one[policy] += trips(client, TRIPS)
            for policy, client in clients.items():
                many[policy].append(pipelined(client, PIPELINED // 3))
    rows = [("policy", "mean ms", "median ms", "pipelined ms", "added ms", "added pipelined")]
    for policy in clients:
        mean, mean_off = statistics.mean(one[policy]), statistics.mean(one["off"])
        each, each_off = statistics.mean(many[policy]), statistics.mean(many["off"])
        rows.append(
            (
                policy,
                f"{mean:.2f}",
                f"{statistics.median(one[policy]):.2f}",
                f"{each:.2f}",
                f"{mean - mean_off:+.2f}",
                f"{each - each_off:+.2f}",
            )
        )
    show(f"pass, with {size_mb} MB in the worker", rows)


def test_cells_over_millions_of_dicts(tmp_path: Path) -> None:
    seconds: dict[str, float] = {}
    with started(tmp_path, "off", "auto") as clients:
        for client in clients.values():
            client.run(DICTS)
            client.run(WALK)
        seconds = dict.fromkeys(clients, 0.0)
        # Blocks without pauses: while the others run, a kernel is idle, and takes a snapshot.
        for _ in range(BLOCKS):
            for policy, client in clients.items():
                began_s = time.perf_counter()
                for _ in range(WALKS // BLOCKS):
                    client.run(WALK)
                seconds[policy] += time.perf_counter() - began_s
    rows = [("policy", "s", "ratio")]
    rows += [(p, f"{s:.2f}", f"{s / seconds['off']:.2f}") for p, s in seconds.items()]
    show(f"{WALKS} cells over 1.5 million dicts", rows)


def test_memory_after_half_of_the_data_was_written(tmp_path: Path) -> None:
    rows = [("policy", "before MB", "after MB", "growth MB")]
    with started(tmp_path, "off", "auto") as clients:
        for policy, client in clients.items():
            client.run("data = bytearray(500 << 20)\ndata[::4096] = b'x' * (500 << 8)")
            time.sleep(IDLE_S)
            before = proportional_mb(client)
            client.run("data[: 250 << 20 : 4096] = b'y' * (250 << 8)")
            after = proportional_mb(client)
            rows.append((policy, f"{before:.0f}", f"{after:.0f}", f"{after - before:+.0f}"))
    show("memory of the whole kernel, 500 MB of data, half of it written", rows)


@pytest.mark.parametrize("size_mb", SIZES_MB)
def test_from_a_kill_to_the_next_reply(tmp_path: Path, size_mb: int) -> None:
    times: list[float] = []
    with started(tmp_path, "auto") as clients:
        client = clients["auto"]
        client.run(f"data = bytearray({size_mb} << 20)\ndata[::4096] = b'x' * ({size_mb} << 8)")
        for _ in range(KILLS):
            time.sleep(IDLE_S)
            pid = worker_pid(client)
            time.sleep(IDLE_S)
            sleeping = client.execute("import time; time.sleep(100)")
            time.sleep(IDLE_S)
            began_s = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            client.hear(sleeping)
            client.run("data[0]")
            times.append((time.perf_counter() - began_s) * 1000)
    show(
        f"from kill -9 to the reply of the next cell, {size_mb} MB",
        [("median ms", "max ms"), (f"{statistics.median(times):.0f}", f"{max(times):.0f}")],
    )
