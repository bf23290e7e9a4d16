"""What is measured: each function takes a kernel and gives numbers by the row they belong to."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import psutil

from bench.client import DEADLINE_S, Client, Heard, note

if TYPE_CHECKING:
    from collections.abc import Callable

    import zmq

    from bench.peers import Peer

Numbers = dict[str, float]

MEGABYTE = 1_000_000
PRINTS = "for n in range(100_000): print(n)"
PRINTED = sum(len(f"{n}\n") for n in range(100_000))
ROUND_TRIPS = 150
COMPLETIONS = 20
SLEEP_S = 3.0
QUIET_S = 2.0
"""A reader that has lost the idle state stops after so long without a message."""

COMM = """
from comm import create_comm, get_comm_manager
def take(comm, message):
    comm.on_msg(lambda message: comm.send({'bytes': len(message['buffers'][0])}))
get_comm_manager().register_target('bench', take)
comm = create_comm('bench_out')
"""


def launch(peer: Peer, folder: Path) -> Numbers:
    """Time the launch, until kernel_info is answered and until a first cell is; then weigh it.

    No other kernel runs meanwhile: shared pages would make all of them lighter.
    """
    with closing(Client(peer, folder)) as client:
        client.hear(client.send("kernel_info_request", {}), has_idle=False)
        informed_s = time.perf_counter() - client.started_s
        client.hear(client.execute("1"), has_idle=False)
        executed_s = time.perf_counter() - client.started_s
        client.run("1")
        pss_bytes = _pss_bytes(client)
    return {
        "launch to kernel_info": informed_s,
        "launch to first execute reply": executed_s,
        "PSS of the process tree": pss_bytes,
    }


def round_trips(client: Client) -> Numbers:
    """Time single cells, one after the other."""
    times_s: list[float] = []
    for _ in range(ROUND_TRIPS):
        start_s = time.perf_counter()
        client.run("1")
        times_s.append(time.perf_counter() - start_s)
    percentiles_s = quantiles(times_s, n=100)
    return {
        "execute round trip, p50": percentiles_s[49],
        "execute round trip, p99": percentiles_s[98],
    }


def pipelined(client: Client) -> Numbers:
    """Time 300 cells that are sent at once."""
    start_s = time.perf_counter()
    client.hear(*[client.execute("1") for _ in range(300)])
    return {"300 pipelined executes": time.perf_counter() - start_s}


def prints(client: Client) -> Numbers:
    """Time 100,000 prints, and count what arrives."""
    start_s = time.perf_counter()
    heard = client.run(PRINTS)
    return {
        "100,000 prints": time.perf_counter() - start_s,
        "characters of the prints received": heard.characters / PRINTED,
    }


def prints_for_a_sleeper(client: Client) -> Numbers:
    """Count what a client gets that sleeps for 3 s, with zmq's usual high-water mark of 1000."""
    with client.subscribe(1000) as sleeper:
        client.run("1")
        assert sleeper.poll(int(DEADLINE_S * 1000)), f"{client.name}: no subscription"
        msg_id = client.execute(PRINTS)
        time.sleep(SLEEP_S)
        characters = _read(sleeper, msg_id)
        client.hear(msg_id)
    return {"the same, by a client that sleeps 3 s": characters / PRINTED}


def _read(sleeper: zmq.Socket[bytes], msg_id: str) -> int:
    heard = Heard({f"{msg_id}+idle"})
    while heard.waiting and sleeper.poll(int(QUIET_S * 1000)):
        frames = sleeper.recv_multipart(copy=False)
        note([frame.buffer for frame in frames], heard, is_reply=False)
    return heard.characters


def large_messages(client: Client) -> Numbers:
    """Time 100 MB through a comm in both directions, and one display of 50 MB."""
    client.run(COMM)
    comm_id = f"bench-{time.monotonic_ns()}"
    opening = {"comm_id": comm_id, "target_name": "bench", "data": {}}
    client.hear(client.send("comm_open", opening), has_reply=False)
    blob = bytes(100 * MEGABYTE)

    start_s = time.perf_counter()
    sent = client.send("comm_msg", {"comm_id": comm_id, "data": {}}, [blob])
    client.hear(sent, has_reply=False)
    taken_s = time.perf_counter() - start_s

    client.run("blob = bytes(100_000_000)")
    start_s = time.perf_counter()
    heard = client.run("comm.send({}, buffers=[blob])")
    given_s = time.perf_counter() - start_s
    assert heard.buffer_bytes == len(blob), f"{client.name}: {heard.buffer_bytes} bytes"

    client.run("del blob; text = 'x' * 50_000_000")
    client.run("from IPython.display import publish_display_data as show")
    start_s = time.perf_counter()
    heard = client.run("show({'text/plain': text})")
    shown_s = time.perf_counter() - start_s
    assert heard.characters >= 50 * MEGABYTE, f"{client.name}: {heard.characters} characters"
    client.run("del text")
    return {
        "100 MB to the kernel over a comm": taken_s,
        "100 MB from the kernel over a comm": given_s,
        "one display of 50 MB": shown_s,
    }


def completions(client: Client) -> Numbers:
    """Time completions of a module's attributes."""
    client.run("import os")
    content = {"code": "os.path.", "cursor_pos": 8}
    client.hear(client.send("complete_request", content))
    times_s: list[float] = []
    for _ in range(COMPLETIONS):
        start_s = time.perf_counter()
        heard = client.hear(client.send("complete_request", content))
        times_s.append(time.perf_counter() - start_s)
        assert len(heard.content["matches"]) > 10, client.name
    return {"completion, p50": quantiles(times_s, n=2)[0]}


def _pss_bytes(client: Client) -> int:
    """Sum the proportional set sizes of the kernel's process tree."""
    root = psutil.Process(client.process.pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


MEASURES: tuple[tuple[Callable[[Client], Numbers], int], ...] = (
    (round_trips, 4),
    (pipelined, 11),
    (completions, 3),
    (prints, 3),
    (prints_for_a_sleeper, 1),
    (large_messages, 3),
)
"""In this order, each in so many rounds."""
