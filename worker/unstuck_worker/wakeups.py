"""Signals that the main thread does not see: each leaves a byte, which its Python handler takes.

A signal between a thread's last bytecode and its wait (``time.sleep``, a lock, the event loop's)
does not end that wait: CPython only notes it. The lane thread sees the byte, wakes the loop, and
when the byte is still there after a while sends the signal again, which ends the wait.

Threads: `take` is called by the signal handler, the others in the lane thread.
"""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from unstuck_worker.signals import Signals

PAUSES_S = (0.01, 0.05, 0.2)
"""How long the handler may take before the signal is sent again, each time."""


class Wakeups:
    """The bytes of signals that have come."""

    def __init__(self, signals: Signals, wake_loop: Callable[[], None]) -> None:
        """Look after SIGINT as long as it comes to us."""
        self._signals = signals
        self._wake_loop = wake_loop
        self._reading, self._writing = socket.socketpair()
        for end in (self._reading, self._writing):
            end.setblocking(False)
        self._again = 0
        self._handled = 0
        self._seen = 0
        """What `_handled` was at the last look."""

    def revive(self) -> None:
        """Take new descriptors, in a copy whose old ones are dead."""
        self.close()
        self._reading, self._writing = socket.socketpair()
        for end in (self._reading, self._writing):
            end.setblocking(False)
        self._again = 0

    def close(self) -> None:
        """Let go of the descriptors, which no signal may write to any more."""
        self._reading.close()
        self._writing.close()

    def install(self) -> None:
        """Have each signal leave its byte; main thread only."""
        self._signals.install(self._writing.fileno())

    def fileno(self) -> int:
        """Give the descriptor that becomes readable with a signal."""
        return self._reading.fileno()

    def take(self) -> None:
        """Take the bytes: the handler runs."""
        self._handled += 1
        with suppress(OSError):
            self._reading.recv(4096)

    def check(self) -> float | None:
        """Wake who has to handle a signal; say in how many seconds to look again, if at all."""
        if self._handled != self._seen:
            # The signal of the last look is over: a byte is that of another one.
            self._seen, self._again = self._handled, 0
        found = b""
        with suppress(OSError):
            found = self._reading.recv(4096, socket.MSG_PEEK)
        waits = signal.SIGINT in found and self._signals.handles_interrupts()
        if waits and self._again <= len(PAUSES_S):
            if self._again:
                # Python code of the main thread cannot run between the look and this.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            else:
                self._wake_loop()
            self._again += 1
            if self._again <= len(PAUSES_S):
                return PAUSES_S[self._again - 1]
            size = 4096  # Those of the signals that were sent again, too.
        else:
            size = len(found)
            if found:
                self._wake_loop()
        self._again = 0
        with suppress(OSError):  # The handler may have run meanwhile, and taken them.
            self._reading.recv(size)
        return None
