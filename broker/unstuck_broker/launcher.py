"""The process that launched the kernel: when it dies without a word, nobody will stop us."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unstuck_broker.process import watch_fd

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_POLL_S = 1.0


def watch_launcher(
    loop: asyncio.AbstractEventLoop, pid: int | None, gone: Callable[[], None]
) -> None:
    """Call ``gone`` once when the launcher has ended.

    Args:
        loop: the broker's.
        pid: the launcher, our parent when we started; it may be gone by now.
        gone: called in the loop.
    """
    if pid is None:
        return
    if os.getppid() != pid:
        loop.call_soon(gone)
        return
    exit_fd = watch_fd(pid)
    if exit_fd is None:
        _poll(loop, pid, gone)
        return

    def ended() -> None:
        loop.remove_reader(exit_fd)
        os.close(exit_fd)
        gone()

    loop.add_reader(exit_fd, ended)


def _poll(loop: asyncio.AbstractEventLoop, pid: int, gone: Callable[[], None]) -> None:
    if os.getppid() != pid:
        gone()
    else:
        loop.call_later(_POLL_S, _poll, loop, pid, gone)
