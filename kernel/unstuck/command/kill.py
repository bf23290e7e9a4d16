"""``unstuck kill``: end a kernel; at once and by force where it is asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import psutil

from unstuck.command import examples, say
from unstuck.command.target import ANSWER_S, Failed, deadline_option, found, kernel_argument

if TYPE_CHECKING:
    from unstuck.running import RunningKernel

_LOOK_S = 0.02


@click.command(
    "kill",
    epilog=examples("unstuck kill analysis.ipynb", "unstuck kill 3f1c --now"),
)
@kernel_argument
@click.option(
    "--now",
    is_flag=True,
    help="Kill its processes at once; no finally block and no atexit handler runs.",
)
@deadline_option(10.0, "for its end")
def kill_command(*, name: str, now: bool, deadline_s: float) -> None:
    """End a kernel for good; exit code 1 when it has not ended in time.

    KERNEL is a kernel's id or its beginning, a notebook's name or path, or a connection file.
    A kernel of a Jupyter server is ended by that server, which would otherwise start it again.
    """
    kernel = found(name)
    start_s = time.monotonic()
    if now:
        _kill_tree(kernel)
        _tell_server(kernel, deadline_s)
    elif not _tell_server(kernel, deadline_s):
        _ask(kernel)
    if not _has_ended(kernel, start_s + deadline_s):
        hint = "" if now else "; 'unstuck kill --now' does not ask it"
        raise Failed(f"{kernel.describe()} still runs after {deadline_s:g} s{hint}")
    spent_s = time.monotonic() - start_s
    say([f"Ended {kernel.describe()} after {spent_s:.2f} s."])


def _tell_server(kernel: RunningKernel, deadline_s: float) -> bool:
    """Have its server end it, if it has one that answers; tell whether it did."""
    if kernel.session is None:
        return False
    try:
        kernel.session.server.shut_down(kernel.kernel_id, deadline_s=deadline_s)
    except (OSError, ValueError):
        return False
    return True


def _ask(kernel: RunningKernel) -> None:
    """Send a shutdown_request; an answer is not needed, only the end is."""
    from unstuck.control import Control, NoAnswer

    with Control(kernel.connection) as control:
        try:
            control.ask("shutdown_request", {"restart": False}, deadline_s=ANSWER_S)
        except NoAnswer as error:
            raise Failed(
                f"{kernel.describe()}: {error}; 'unstuck kill --now' does not ask it"
            ) from error


def _kill_tree(kernel: RunningKernel) -> None:
    """Kill the kernel's process and all below it.

    Raises:
        Failed: the process is not known, or not ours to kill.
    """
    if kernel.pid is None:
        raise Failed(
            f"no process of this machine was started with {kernel.connection_file}: without"
            " --now it is asked to end"
        )
    try:
        process = psutil.Process(kernel.pid)
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in tree:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            raise Failed(f"process {member.pid} belongs to another user") from None


def _has_ended(kernel: RunningKernel, end_s: float) -> bool:
    """Wait until its process is gone, or, where that is not known, nobody listens any more."""
    from unstuck.control import is_listening

    while True:
        pid = kernel.pid
        ended = not is_listening(kernel.connection) if pid is None else _is_gone(pid)
        if ended or time.monotonic() >= end_s:
            return ended
        time.sleep(_LOOK_S)


def _is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
