"""The first worker as a fork of this process, from before it is a broker: both share their memory.

Much of what they import is the same (msgspec, the protocol). Imported once and
then forked, it is there once: 4 MB less for both (PSS), and less work at the start. There is one
thread and no zmq yet, so the fork is a whole process; it runs ``unstuck_worker`` as ``-m`` would.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import sys

from unstuck_broker.process import Ends, WorkerProcess, worker_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_SHARED = (
    # Not asyncio: the broker loads it without ssl, and both load it at the same time.
    "concurrent.futures",
    "datetime",
    "heapq",
    "pickle",
    "socket",
    "subprocess",
    "unstuck.codec",
    "unstuck.config",
    "unstuck.errors",
    "unstuck.runmode",
)
_NAME, _TWIN_NAME = b"unstuck_broker", b"unstuck_worker"


def fork_worker(broker_end: socket.socket, template_end: socket.socket) -> WorkerProcess:
    """Import what both processes need, and fork the worker.

    Args:
        broker_end: where the broker asks the worker's template; the worker has none of it.
        template_end: where the template listens; only the worker keeps it.

    Raises:
        OSError: no process or descriptor is to be had.
    """
    for name in _SHARED:
        importlib.import_module(name)
    gc.freeze()  # A collection in one process must not unshare the pages of both.
    ends = Ends()
    sources, targets = ends.placed(template_end.fileno())
    broker = os.getpid()
    pid = os.fork()
    if pid:
        for fd in sources:
            os.close(fd)
        template_end.close()
        return ends.hand_over(pid)
    ends.forget()
    broker_end.detach()
    template_end.detach()
    _be_worker(sources, targets, broker)
    raise AssertionError("a worker ends by SystemExit")


def _be_worker(sources: list[int], targets: list[int], broker: int) -> None:
    """Become what ``python -P -m unstuck_worker`` would be, in a session of its own."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for source, target in zip(sources, targets, strict=True):
        os.dup2(source, target)
    os.closerange(targets[-1] + 1, max(sources) + 1)
    _rename()
    for name in [name for name in sys.modules if name.partition(".")[0] == "unstuck_broker"]:
        del sys.modules[name]
    sys.argv = ["unstuck_worker", *worker_arguments(targets, broker)]
    runpy.run_module("unstuck_worker", run_name="__main__", alter_sys=True)
    sys.exit(0)


def _rename() -> None:
    """Show as a worker in process lists: the names are equally long, one replaces the other."""
    import ctypes  # noqa: PLC0415 - in the worker, whom nobody waits for yet

    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - pathlib is not loaded yet
        stat = file.read()
    fields = stat[stat.rindex(b")") + 2 :].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end of proc_pid_stat(5)
    if start and end > start:
        line = ctypes.string_at(start, end - start)
        ctypes.memmove(start, line.replace(_NAME, _TWIN_NAME), end - start)
