"""``unstuck interrupt``: interrupt what runs in a kernel, or one cell of it, and see it end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from unstuck.command import examples, say
from unstuck.command.target import (
    ANSWER_S,
    Failed,
    Target,
    deadline_option,
    kernel_argument,
    reached,
)
from unstuck.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unstuck.vitals import Running

_LOOK_S = 0.02


@click.command(
    "interrupt",
    epilog=examples(
        "unstuck interrupt analysis.ipynb",
        "unstuck interrupt 3f1c --cell 0c5e8d1f",
    ),
)
@kernel_argument
@click.option(
    "--cell",
    metavar="MSG_ID",
    help="Only this request, by its message id or the id's beginning: see 'unstuck ps --json'.",
)
@deadline_option(5.0, "for the end of what is interrupted")
def interrupt_command(*, name: str, cell: str | None, deadline_s: float) -> None:
    """Interrupt the cell that runs in a kernel; exit code 1 when it has not ended in time.

    KERNEL is a kernel's id or its beginning, a notebook's name or path, or a connection file.
    """
    with reached(name) as target:
        if not target.is_ours:
            _interrupt_other(target, cell)
            return
        before = _running(target)
        aim = None if cell is None else _meant(cell, before)
        content = {} if aim is None else {"msg_id": aim.msg_id}
        reply = target.control.ask("interrupt_request", content, deadline_s=ANSWER_S)
        if reply.get("status") != "ok":
            raise Failed(f"{target.kernel.describe()} refused: {reply.get('evalue', reply)}")
        if not before:
            say([f"Nothing runs in {target.kernel.describe()}."])
            return
        _watch(target, before if aim is None else [aim], deadline_s)


def _interrupt_other(target: Target, cell: str | None) -> None:
    if cell is not None:
        target.require_ours("it cannot interrupt a single cell")
    target.control.ask("interrupt_request", deadline_s=ANSWER_S)
    say([f"{target.kernel.describe()} has taken the interrupt."])


def _running(target: Target) -> list[Running]:
    from unstuck.vitals import read_running

    return read_running(target.control.ask("state_request", deadline_s=ANSWER_S))


def _meant(cell: str, running: Sequence[Running]) -> Running:
    """Find the request that runs under a message id, or under one that begins so.

    Raises:
        ConfigError: none, or more than one.
    """
    exact = [one for one in running if one.msg_id == cell]
    meant = exact or [one for one in running if cell and one.msg_id.startswith(cell)]
    if len(meant) == 1:
        return meant[0]
    ids = ", ".join(one.msg_id for one in meant or running) or "nothing runs"
    if meant:
        raise ConfigError(f"--cell {cell} names {len(meant)} requests: {ids}")
    raise ConfigError(f"--cell {cell}: no such request runs; these do: {ids}")


def _watch(target: Target, aims: Sequence[Running], deadline_s: float) -> None:
    """Wait until one of those that were aimed at has ended: the kernel chooses what it means.

    Raises:
        Failed: none has.
    """
    aimed = {one.msg_id for one in aims}
    start_s = time.monotonic()
    while True:
        left = {one.msg_id for one in _running(target)}
        spent_s = time.monotonic() - start_s
        if ended := aimed - left:
            which = ", ".join(_describe(one) for one in aims if one.msg_id in ended)
            say([f"Interrupted {which} in {target.kernel.describe()} after {spent_s:.2f} s."])
            return
        if spent_s >= deadline_s:
            break
        time.sleep(min(_LOOK_S, deadline_s))
    raise Failed(
        f"still running after {deadline_s:g} s in {target.kernel.describe()}: interrupt again to"
        " have its worker killed (what this costs is written under the cell), or see"
        " 'unstuck stack'"
    )


def _describe(one: Running) -> str:
    count = "" if one.execution_count is None else f"[{one.execution_count}] "
    return count + (one.code or one.msg_type)
