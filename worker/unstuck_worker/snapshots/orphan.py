"""Turn a forked child into an orphan, whom the broker adopts, without a second fork.

A second ``fork`` would copy the page tables once more, which is most of what a fork costs. Instead
the child starts a process that shares its memory, and that ends the child: the memory goes on.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import time

_ADOPTION_S = 1.0
_PR_GET_TID_ADDRESS = 40
_CLONE_VM = 0x100
_CLONE_VFORK = 0x4000
_CLONE_CHILD_SETTID = 0x01000000
# (clone, set_tid_address, where the child's address for its id stands among clone's arguments)
_CALLS = {"x86_64": (56, 218, 3), "aarch64": (220, 96, 4)}

# PyDLL keeps the GIL: nothing here may stop at a lock.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def orphan_self() -> None:
    """Go on as an orphan: return in a process whose parent has ended or ends at once.

    For a child right after its fork.
    """
    child = os.getpid()
    # Threads that a library starts again in every child (scipy.fft does) would end with it.
    has_threads = len(os.listdir("/proc/self/task")) > 1  # noqa: PTH208
    if not has_threads and _share_memory():
        os.kill(child, signal.SIGKILL)
        return
    if os.fork():
        os._exit(0)


def _share_memory() -> bool:
    """Start a process in this memory; True in it, False here when that is not possible.

    This process does not run again: CLONE_VFORK stops it until the other one has ended it. So both
    may stand on one stack.
    """
    calls = _CALLS.get(platform.machine())
    if calls is None or sys.platform != "linux":
        return False
    clone, set_tid_address, place = calls
    address = ctypes.c_void_p()
    # The place where glibc keeps this thread's id: the new one must find its own there.
    if _libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) or not address.value:
        return False
    # Else the system writes a 0 there when this process ends.
    _libc.syscall(ctypes.c_long(set_tid_address), ctypes.c_void_p(None))
    flags = _CLONE_VM | _CLONE_VFORK | _CLONE_CHILD_SETTID | int(signal.SIGCHLD)
    arguments = [ctypes.c_long(flags), *(ctypes.c_void_p(None) for _ in range(4))]
    arguments[place] = address
    return bool(_libc.syscall(ctypes.c_long(clone), *arguments) == 0)


def await_adoption(parent: int) -> bool:
    """Wait until the broker is the parent, which takes microseconds."""
    deadline_s = time.monotonic() + _ADOPTION_S
    while os.getppid() != parent:
        if time.monotonic() > deadline_s:
            return False
        os.sched_yield()
    return True
