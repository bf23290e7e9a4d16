"""The template: a copy of this process from before any user code, which forks new workers.

Threads: one. Whoever forks here has imported the interpreter and nothing else has happened, so that
a fork is a whole process. Copies are forked twice: their parent is the broker, which reaps orphans.

Who waits for an order: the template, or its spare where it has one. The template sees by a pipe
that the spare was taken, and waits for orders again.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import socket
import time
from typing import TYPE_CHECKING

from unstuck.templating import I_AM_SPARE, I_AM_TEMPLATE, I_AM_WORKER, LEAVE, SPARE, WORD
from unstuck_worker import process

if TYPE_CHECKING:
    from collections.abc import Callable

_ADOPTION_S = 1.0
_ORDER_WAIT_MS = 1000
_MAX_FDS = 16
_ORDER_BYTES = 16
_FIRST_FD = 3
_HIGH_FD = 32


def is_wanted(template_fd: int) -> bool:
    """Tell whether the broker orders a template; it has done so or closed its end, or soon will.

    The order says that orphans are the broker's children. On a loaded machine it may come behind
    the shell, else it has been there for long.
    """
    look = select.poll()
    look.register(template_fd, select.POLLIN)
    is_ordered = look.poll(_ORDER_WAIT_MS) == [(template_fd, select.POLLIN)]
    return is_ordered and os.read(template_fd, _ORDER_BYTES) == LEAVE


def leave_template(template_fd: int, broker: int, is_current: Callable[[], bool]) -> bool:
    """Fork the template; return in each process that is to be a worker.

    Args:
        template_fd: the socket on which the broker asks for workers.
        broker: the broker's process id.
        is_current: asked before each fork; once it says no, the template ends.

    Returns:
        False in the caller, True in later workers: forks of the template, with their descriptors 1,
        2 and from 3 on in place, as the caller's were.
    """
    if not is_current():
        os.close(template_fd)  # It has a thread by now: no fork of it is whole.
        return False
    gc.freeze()  # A collection in one copy must not unshare the pages of all.
    if _fork_orphan():
        os.close(template_fd)
        return False
    try:
        os.setsid()
        _be_adopted(broker)
        _close_all_but(template_fd)
        asked = socket.socket(fileno=template_fd)
        _say(asked, I_AM_TEMPLATE)
        while True:
            order, fds = _next_order(asked, is_current)
            ends = _fork_spare(asked, broker, is_current) if order == SPARE else _fork_now(fds)
            if ends:
                _become_worker(asked, ends, broker)
                return True
    except OSError:
        pass  # The broker is gone: the only one who could be told.
    os._exit(0)


def _say(asked: socket.socket, who: bytes) -> None:
    asked.send(WORD.pack(who, os.getpid()))


def _next_order(asked: socket.socket, is_current: Callable[[], bool]) -> tuple[bytes, list[int]]:
    """Wait for an order; end when the broker is gone or a shell would be built otherwise now."""
    order, fds, *_ = socket.recv_fds(asked, _ORDER_BYTES, _MAX_FDS)
    if not order or not is_current():
        os._exit(0)
    return order, fds


def _fork_now(fds: list[int]) -> list[int]:
    """Fork a worker; give the fork its descriptors, and the template none."""
    if not _fork_orphan():
        return fds
    for fd in fds:
        os.close(fd)
    return []


def _fork_spare(asked: socket.socket, broker: int, is_current: Callable[[], bool]) -> list[int]:
    """Fork a worker that waits for its descriptors; return in the template once it has them.

    As `_fork_now` it gives the fork its descriptors, and the template none.

    Raises:
        OSError: the spare has died before that.
    """
    taken, taking = os.pipe()
    if _fork_orphan():
        os.close(taking)
        is_taken = bool(os.read(taken, 1))
        os.close(taken)
        if not is_taken:
            raise OSError("the spare has died")
        return []
    os.close(taken)
    _be_adopted(broker)
    _say(asked, I_AM_SPARE)
    order, fds = SPARE, list[int]()
    while order == SPARE:  # The broker asks again where this one was slow to name itself.
        order, fds = _next_order(asked, is_current)
    os.write(taking, b"x")
    os.close(taking)
    return fds


def _fork_orphan() -> bool:
    """Fork twice; True in the original, False in the grandchild, who is soon an orphan."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return True
    if os.fork():
        os._exit(0)
    return False


def _be_adopted(broker: int) -> None:
    """Wait until the broker is the parent, which takes microseconds; then die when it dies."""
    deadline_s = time.monotonic() + _ADOPTION_S
    while os.getppid() != broker and time.monotonic() < deadline_s:
        os.sched_yield()
    process.die_with_parent(broker)


def _close_all_but(template_fd: int) -> None:
    """Hold no end of any worker's lanes and pipes: their peers must see them close."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, template_fd)
    os.closerange(template_fd + 1, os.sysconf("SC_OPEN_MAX"))


def _become_worker(asked: socket.socket, fds: list[int], broker: int) -> None:
    """Put the descriptors in place, tell the broker our process id, and be a worker."""
    os.setsid()
    _be_adopted(broker)
    _say(asked, I_AM_WORKER)
    asked.close()
    # Above all targets, so that no dup2 closes the source of a later one.
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for fd in fds]
    targets = [1, 2, *range(_FIRST_FD, _FIRST_FD + len(fds) - 2)]
    for source, target in zip(sources, targets, strict=True):
        os.dup2(source, target)
    os.closerange(targets[-1] + 1, max(sources) + 1)
