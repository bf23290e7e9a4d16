"""Fork the worker into itself and a dormant copy of it.

Threads: the main thread's. The copy has no other; it blocks in one read until the broker wants it,
and ends only by a signal or ``os._exit``: nothing of the original's may be cleaned up by it.
"""

from __future__ import annotations

import gc
import mmap
import os
import select
import signal
import socket
import sys
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from unstuck.codec import Decoder, encode
from unstuck.protocol import CopyReady, Donate, Promote, ToCopy
from unstuck.stack import STACK_SIGNAL
from unstuck_worker import process
from unstuck_worker.snapshots import descriptors, orphan
from unstuck_worker.snapshots.mark import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence
    from pathlib import Path

READ_BYTES = 1 << 18
MAX_FDS = 16
CONNECT_S = 5.0
LARGE_BYTES = 256 << 20
"""A fork of so much takes 5 ms or more."""
SPARE_S = 0.15
SPARE_DEADLINE_S = 5.0
_NEVER_BLOCKED = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    STACK_SIGNAL,
}
_TIMERS = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF
_NO_SWITCH_S = 1.0
_SILENCE = ("ignore", None, Warning, None, 0)


class ForkFailedError(Exception):
    """There is no copy; the worker goes on."""


class HinderedError(ForkFailedError):
    """Nothing was forked; a moment later it may be possible."""


@dataclass
class Awake:
    """What a copy knows when the broker has called it."""

    order: Promote | Donate
    fds: list[int]
    recipes: descriptors.Recipes
    random_state: Any = None
    uncloseable: list[Any] = field(default_factory=list)
    """Objects that must live for ever in a copy."""
    timers: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Those of `signal.setitimer`: a fork takes none along."""


@dataclass
class Bed:
    """What a copy needs to know to lie down."""

    address: str
    """Where the broker listens: an abstract AF_UNIX address, without the NUL."""
    broker: int
    ours: Sequence[int]
    """The worker's own descriptors."""
    own_files: Collection[Path]
    """The worker's own files; their locks are held for moments, and waited for."""
    ready: Callable[[int, descriptors.Recipes], CopyReady]
    """Makes the copy's message to the broker, given its process id and what it let go of."""
    find_uncloseable: Callable[[], list[Any]]
    """Finds what must live for ever in a copy."""
    wants_spare: bool
    """A large copy shall leave a second one behind."""


def fork_copy(bed: Bed, deadline_s: float, look: Callable[[], str]) -> Awake | None:
    """Fork; None in the original, and in the copy, much later, what the broker wants of it.

    Args:
        bed: what the copy needs.
        deadline_s: how long the child may take to be an orphan.
        look: says what hinders a fork at this very moment; it never gives up the GIL.

    Raises:
        ForkFailedError: no copy lives.
    """
    random = sys.modules.get("random")
    random_state = random.getstate() if random is not None else None
    timers = {timer: signal.getitimer(timer) for timer in _TIMERS}
    interval_s = sys.getswitchinterval()
    collects = gc.isenabled()
    blocked = signal.valid_signals() - _NEVER_BLOCKED
    with _silent(), _without_handler():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        gc.disable()
        Mark.is_snapshot = True
        # From the look to the fork no other thread shall run: none is to ask for the GIL.
        sys.setswitchinterval(_NO_SWITCH_S)
        try:
            hindrance = look()
            if hindrance:
                raise HinderedError(hindrance)
            child = os.fork()
            if not child:
                awake = _sleep(bed)
                awake.random_state, awake.timers = random_state, timers
                return awake
        except OSError as error:
            raise ForkFailedError(f"cannot fork: {error}") from error
        finally:
            # In a copy these are part of its promotion, which is far from here.
            sys.setswitchinterval(interval_s)
            Mark.is_snapshot = False
            if collects:
                gc.enable()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _await_end(child, deadline_s)
    return None


def _sleep(bed: Bed) -> Awake:
    """Be the copy: let go of everything, tell the broker, and wait."""
    try:
        # First: the original goes on when the child has ended, and may close a file at once.
        recipes = descriptors.deaden(bed.ours, bed.own_files)
        _go_to_broker(bed)
        connection = _report(bed, recipes)
        # Now, while nobody waits for it.
        uncloseable = bed.find_uncloseable()
        if bed.wants_spare and _is_left_alone(connection) and _fork_spare():
            connection.close()
            _go_to_broker(bed)
            connection = _report(bed, recipes, is_spare=True)
        with connection:
            order, fds = _await_order(connection)
        while signal.sigpending():
            # What came while we slept was not meant for us.
            signal.sigtimedwait(signal.sigpending(), 0)
    except BaseException:  # noqa: BLE001  (nobody is there to be told: we are only a copy)
        os._exit(1)
    return Awake(order, fds, recipes, uncloseable=uncloseable)


def _go_to_broker(bed: Bed) -> None:
    """Become a child of the broker, in a session of its own."""
    orphan.orphan_self()
    os.setsid()
    if not orphan.await_adoption(bed.broker):
        os._exit(1)
    process.die_with_parent(bed.broker)


def _report(bed: Bed, recipes: descriptors.Recipes, *, is_spare: bool = False) -> socket.socket:
    """Tell the broker that this copy is there; give the connection."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(CONNECT_S)
    connection.connect(f"\0{bed.address}")
    connection.settimeout(None)
    word = msgspec.structs.replace(bed.ready(os.getpid(), recipes), is_spare=is_spare)
    connection.sendall(b"".join(encode(word)))
    return connection


def _is_left_alone(connection: socket.socket) -> bool:
    """Say whether this copy is large, and neither wanted nor replaced for a while.

    A spare then saves its worker from a fork that the next cell would wait for.
    """
    with open("/proc/self/statm", "rb", 0) as file:  # noqa: PTH123  (nothing more is to be loaded)
        pages = int(file.read(256).split()[1])
    is_large = pages * mmap.PAGESIZE > LARGE_BYTES
    return is_large and not select.select([connection], [], [], SPARE_S)[0]


def _fork_spare() -> bool:
    """Leave another copy behind; True in that one. Without it this copy is as good as before."""
    with suppress(OSError, ForkFailedError):
        child = os.fork()
        if not child:
            return True
        _await_end(child, SPARE_DEADLINE_S)
    return False


def _await_order(connection: socket.socket) -> tuple[Promote | Donate, list[int]]:
    """Wait for the broker: the one wait without an end, which its death ends too."""
    decoder: Decoder[ToCopy] = Decoder(ToCopy)
    fds: list[int] = []
    while True:
        data, more, _, _ = socket.recv_fds(connection, READ_BYTES, MAX_FDS)
        if not data:
            os._exit(0)
        fds += more
        for message in decoder.feed(data):
            return message, fds


def _await_end(child: int, deadline_s: float) -> None:
    """Collect the child, which ends at once: the copy is its orphan."""
    try:
        descriptor = os.pidfd_open(child)
    except OSError:
        descriptor = -1  # Somebody has collected it already.
    if descriptor >= 0:
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            in_time = bool(poll.poll(deadline_s * 1000))
        finally:
            os.close(descriptor)
        if not in_time:
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
        if not in_time:
            raise ForkFailedError(f"the copy did not come up within {deadline_s:.1f} s")


@contextmanager
def _silent() -> Generator[None]:
    """Let the hooks around a fork warn nobody; ``catch_warnings`` would leave traces."""
    filters: Any = warnings.filters
    filters.insert(0, _SILENCE)
    try:
        yield
    finally:
        with suppress(ValueError):
            filters.remove(_SILENCE)


@contextmanager
def _without_handler() -> Generator[None]:
    """Keep the end of our own child from a SIGCHLD handler of the user's."""
    handler = signal.getsignal(signal.SIGCHLD)
    if not callable(handler):
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
        with suppress(ChildProcessError):
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                # Another child has ended meanwhile.
                signal.raise_signal(signal.SIGCHLD)
