"""The look at a process before it is forked."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

import pytest

from unstuck_worker.snapshots.look import ENDING_LOOKS, Look

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="snapshots need Linux")

libc = ctypes.CDLL(None)


@pytest.fixture
def native_thread() -> Generator[None]:
    """A thread that the system knows, and Python does not."""
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, libc.pause, None) == 0
    yield
    libc.pthread_cancel(thread)
    libc.pthread_join(thread, None)


@pytest.mark.usefixtures("native_thread")
def test_a_thread_that_python_does_not_know_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("unstuck_worker.snapshots.look.time.sleep", waits.append)
    look = Look()
    sight = look.look()
    assert sight.reasons or sight.hindrance
    assert len(waits) == ENDING_LOOKS
    look.look()
    assert len(waits) == ENDING_LOOKS


def test_a_python_thread_at_its_end_is_no_library_s(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look()
    look.look()
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, libc.pause, None) == 0

    def end(_seconds: float) -> None:
        libc.pthread_cancel(thread)
        libc.pthread_join(thread, None)
        monkeypatch.undo()

    monkeypatch.setattr("unstuck_worker.snapshots.look.time.sleep", end)
    assert look.look().reasons == Look().look().reasons
