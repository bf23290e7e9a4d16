"""The worker and the operating system: its death with the broker, C's streams, and its stacks."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys

from unstuck.stack import STACK_SIGNAL
from unstuck_worker.snapshots.mark import Mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_IOLBF = 0 if sys.platform == "darwin" else 1
_libc = ctypes.CDLL(None, use_errno=True)
_stdout_name = "__stdoutp" if sys.platform == "darwin" else "stdout"
_fflush = _libc.fflush
# Without giving up the GIL: it only reads a number. glibc has it, others do not.
_pending = getattr(ctypes.PyDLL(None), "__fpending", None)


def _c_stdout() -> ctypes.c_void_p:
    return ctypes.c_void_p.in_dll(_libc, _stdout_name)


_stdout = _c_stdout()


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends; main thread only.

    Args:
        parent: the broker's process id; when it is gone already, this process ends at once.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """Take `die_with_parent` back: exit handlers go on without the broker; main thread only."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def buffer_c_lines() -> None:
    """Make C's stdout write whole lines at once, as it does in a terminal."""
    _libc.setvbuf(_stdout, None, _IOLBF, 0)


def flush_c_streams() -> None:
    """Write out what C code printed and its stdout still holds."""
    if _pending is None or _pending(_stdout):
        _fflush(_stdout)


def flush_all_c_streams() -> None:
    """Write out what C code holds in any of its open streams."""
    _fflush(None)


def show_stacks(descriptor: int) -> None:
    """Write a crash's stack to ``descriptor``, and on the signal all stacks."""
    faulthandler.enable(descriptor)
    faulthandler.register(STACK_SIGNAL, descriptor, all_threads=True, chain=False)


def leave_stacks(descriptor: int) -> None:
    """Write a crash's stack to descriptor 2 from here on: this is a forked process."""
    if Mark.is_snapshot:
        return
    faulthandler.enable(2)
    faulthandler.unregister(STACK_SIGNAL)
    signal.signal(STACK_SIGNAL, signal.SIG_IGN)
    if descriptor > 2:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def keep_from_programs(descriptors: Iterable[int]) -> None:
    """Close descriptors of ours in programs that user code starts, also where it closes none."""
    for descriptor in descriptors:
        if descriptor > 2:
            os.set_inheritable(descriptor, False)
