"""CPU and memory of a process tree, for usage_request (jupyter-resource-usage reads the reply)."""

from __future__ import annotations

import os
import socket
from typing import Any


class Usage:
    """Measures; psutil needs the same objects again to tell the CPU used between two questions."""

    def __init__(self) -> None:
        """Begin to measure with the first question."""
        self._seen: dict[int, Any] = {}

    def measure(self, pids: set[int]) -> dict[str, Any]:
        """Measure the processes and the host, in the fields that ipykernel gives."""
        import psutil  # noqa: PLC0415 - 50 ms of start-up that most sessions never need

        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in pids}
        cpu = 0.0
        memory = 0
        for pid in pids:
            try:
                process = self._seen.setdefault(pid, psutil.Process(pid))
                cpu += process.cpu_percent(None)
                info = process.memory_full_info()
                memory += getattr(info, "pss", info.rss)
            except psutil.Error:
                self._seen.pop(pid, None)
        content: dict[str, Any] = {
            "status": "ok",
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "kernel_cpu": cpu,
            "kernel_memory": memory,
            "cpu_count": psutil.cpu_count(logical=True),
            "host_virtual_memory": dict(psutil.virtual_memory()._asdict()),
        }
        if host_cpu := psutil.cpu_percent():
            content["host_cpu_percent"] = host_cpu
        return content
