"""A client that asks on control and hears iopub meanwhile, so cheaply that the kernel is measured.

Threads: one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import zmq

from bench.client import Client

if TYPE_CHECKING:
    from pathlib import Path

    from bench.peers import Peer

BATCH = 2
"""Messages of iopub that are read before control is looked at again."""


class Probe(Client):
    """One kernel and one client of its control channel."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        """Start the kernel."""
        super().__init__(peer, folder)
        self._control = self._connect(zmq.DEALER, "control")
        self._both = zmq.Poller()
        self._both.register(self._control, zmq.POLLIN)
        self._both.register(self.iopub, zmq.POLLIN)
        try:
            # Not every kernel's first messages reach a client that has just subscribed to iopub.
            self.hear(self.send("kernel_info_request", {}), has_idle=False)
            self.hear(self.execute("1"), has_idle=False)
        except TimeoutError:
            self.close()
            raise

    def begin(self, code: str, wait_s: float) -> None:
        """Execute code, and wait so long for output, which not every kernel can send."""
        self.drain()
        self.execute(code)
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0 and self.iopub.poll(int(left_s * 1000) + 1):
            if b"stream" in b"".join(self.iopub.recv_multipart()):
                return

    def ask(self, deadline_s: float) -> float | None:
        """Ask for kernel_info on control; give the seconds to the answer, None if none came."""
        self.drain()
        began_s = time.perf_counter()
        self.send("kernel_info_request", {}, channel=self._control)
        while (left_s := began_s + deadline_s - time.perf_counter()) > 0:
            for ready, _ in self._both.poll(int(left_s * 1000) + 1):
                if ready is self._control:
                    took_s = time.perf_counter() - began_s
                    ready.recv_multipart()
                    return took_s
                self._read_batch()
        return None

    def drain(self) -> None:
        """Read what came on iopub; a kernel that floods it is left alone after a moment."""
        end_s = time.monotonic() + 0.01
        while self._read_batch() and time.monotonic() < end_s:
            pass

    def _read_batch(self) -> bool:
        """Read a few messages; say whether there may be more."""
        try:
            for _ in range(BATCH):
                self.iopub.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True
