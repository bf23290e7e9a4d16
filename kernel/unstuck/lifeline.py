"""A word of shared memory that tells that a process has begun to die, before its end can be seen.

The system tells the end of a process when it has given back its memory, which takes 30 to 150 ms
for 2 GB. Before that it marks the robust futexes that the process's threads hold (futex(2),
get_robust_list(2)) and wakes who waits for them. Linux only; elsewhere nothing is held.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import platform
import sys
import threading

# Places in the page; `unstuck_worker.pipes.SyncPage` has the begin.
_WORD, _HEAD, _ENTRY = 64, 128, 192
# (futex, set_robust_list)
_CALLS = {"x86_64": (202, 273), "aarch64": (98, 99)}
_FUTEX_WAIT = 0
_FUTEX_WAITERS = 0x80000000
_FUTEX_OWNER_DIED = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.mmap.restype = ctypes.c_void_p
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Entry(ctypes.Structure):
    """``struct robust_list``."""

    _fields_ = (("next", ctypes.c_void_p),)


class _Head(ctypes.Structure):
    """``struct robust_list_head``."""

    _fields_ = (
        ("list", _Entry),
        ("futex_offset", ctypes.c_long),
        ("list_op_pending", ctypes.c_void_p),
    )


def hold(descriptor: int) -> None:
    """Hold the word until this thread ends, for a thread that uses no robust mutex otherwise.

    Args:
        descriptor: of the page that holds the word; -1 is none.
    """
    calls = _calls()
    if calls is None or descriptor < 0:
        return
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    page = _libc.mmap(None, mmap.PAGESIZE, protection, mmap.MAP_SHARED, descriptor, 0)
    if page == _MAP_FAILED:
        return
    # All of it in the page, which is never unmapped: the system reads it when the process dies,
    # and the interpreter may be gone by then.
    word = ctypes.c_uint32.from_address(page + _WORD)
    head, entry = _Head.from_address(page + _HEAD), _Entry.from_address(page + _ENTRY)
    head.list.next, entry.next = page + _ENTRY, page + _HEAD
    head.futex_offset = _WORD - _ENTRY
    size = ctypes.c_size_t(ctypes.sizeof(head))
    if _libc.syscall(ctypes.c_long(calls[1]), ctypes.byref(head), size) == 0:
        # As if somebody waited already: the system need not be asked who does.
        word.value = threading.get_native_id() | _FUTEX_WAITERS


class Lifeline:
    """The word as the other process sees it."""

    def __init__(self, descriptor: int) -> None:
        """Map the page that holds the word."""
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._word = ctypes.c_uint32.from_buffer(self._page, _WORD)

    def is_held(self) -> bool:
        """Say whether a thread holds the word, or has held it to its end."""
        return _calls() is not None and bool(self._word.value & _FUTEX_WAITERS)

    def wait(self) -> bool:
        """Wait, without a deadline and without the GIL, for the end of the thread that holds it.

        Returns:
            whether it has ended; False where that cannot be waited for.
        """
        calls = _calls()
        while calls is not None and (value := self._word.value) & _FUTEX_WAITERS:
            if value & _FUTEX_OWNER_DIED:
                return True
            arguments = ctypes.c_int(_FUTEX_WAIT), ctypes.c_uint32(value), ctypes.c_void_p(None)
            result = _libc.syscall(ctypes.c_long(calls[0]), ctypes.byref(self._word), *arguments)
            if result and ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
                break
        return False


def _calls() -> tuple[int, int] | None:
    return _CALLS.get(platform.machine()) if sys.platform == "linux" else None
