"""Signals: cells find the module as Python leaves it, and cannot lose what we have set there."""

from __future__ import annotations

import asyncio
import pickle
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from unstuck_worker.signals import Signals, leave

if TYPE_CHECKING:
    from collections.abc import Iterator


class Installed:
    """Our handler and our descriptor, in this process."""

    def __init__(self) -> None:
        self.heard = 0
        self.signals = Signals(self.hear)
        self.reading, self.writing = socket.socketpair()
        for end in (self.reading, self.writing):
            end.setblocking(False)
        self.signals.install(self.writing.fileno())

    def hear(self, *_: object) -> None:
        self.heard += 1

    def is_woken(self) -> bool:
        """Raise SIGINT; say whether it left its byte with us."""
        signal.raise_signal(signal.SIGINT)
        try:
            return bool(self.reading.recv(100))
        except BlockingIOError:
            return False


@pytest.fixture
def installed() -> Iterator[Installed]:
    before = signal.getsignal(signal.SIGINT)
    installed = Installed()
    yield installed
    leave()
    signal.signal(signal.SIGINT, before)
    installed.reading.close()
    installed.writing.close()


def test_our_handler_is_shown_as_python_s_and_back_where_that_is_set(installed: Installed) -> None:
    heard: list[int] = []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.signal(signal.SIGINT, lambda *_: heard.append(1)) is signal.default_int_handler
    signal.raise_signal(signal.SIGINT)
    assert (heard, installed.heard, installed.signals.handles_interrupts()) == ([1], 0, False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)
    assert (heard, installed.heard, installed.signals.handles_interrupts()) == ([1], 1, True)


def test_our_descriptor_is_there_whenever_nobody_else_s_is(installed: Installed) -> None:
    theirs = installed.reading.fileno()  # Any descriptor that does not block.
    assert signal.set_wakeup_fd(theirs, warn_on_full_buffer=False) == -1
    assert signal.set_wakeup_fd(-1) == theirs
    assert signal.set_wakeup_fd(-1) == -1
    assert installed.is_woken()


def test_an_event_loop_gives_our_descriptor_back(installed: Installed) -> None:
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert not installed.is_woken()
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.close()
    assert installed.is_woken()


def test_a_runner_of_asyncio_handles_interrupts_while_it_runs(installed: Installed) -> None:
    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt), asyncio.Runner() as runner:
        runner.run(interrupt())
    assert installed.heard == 0
    assert installed.is_woken()
    assert installed.heard == 1


@pytest.mark.parametrize("name", ["signal", "getsignal", "set_wakeup_fd"])
def test_the_functions_are_pickled_by_their_name(installed: Installed, name: str) -> None:
    function: Any = getattr(signal, name)
    assert pickle.loads(pickle.dumps(function)) is function
    assert function.__doc__


def test_a_forked_process_has_python_s_own(installed: Installed) -> None:
    leave()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
