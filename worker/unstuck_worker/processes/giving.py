"""In the worker of one cell: note what there was before, and give back what the cell has bound."""

from __future__ import annotations

import socket
from typing import Any

from unstuck_worker.transplant import donor
from unstuck_worker.transplant.carrying import Contents
from unstuck_worker.transplant.names import out_name
from unstuck_worker.transplant.session import variables_of

CONNECT_S = 10.0


class Noted:
    """The variables before the cell; a process runs one."""

    variables: dict[str, object] = {}  # noqa: RUF012  (replaced, never changed)


def note(shell: Any, count: int) -> None:  # noqa: ANN401  (IPython's is untyped)
    """Note what there is before the cell runs; its number and line in the history are given."""
    shell.counter = count
    Noted.variables = variables_of(shell)
    if shell.history_manager is not None:
        shell.history_manager.enabled = False


def give(shell: Any, address: str, count: int) -> list[str]:  # noqa: ANN401
    """Send what the cell has bound; give the names that it has deleted.

    Args:
        shell: in which it ran.
        address: where the other process listens: abstract, without the NUL.
        count: the cell's number.
    """
    before, now = Noted.variables, variables_of(shell)
    missing = object()
    bound = {name: one for name, one in now.items() if before.get(name, missing) is not one}
    others = {name: one for name, one in now.items() if name not in bound}
    outputs = shell.user_ns["_oh"]
    values = dict(bound)
    if count in outputs:
        values |= {out_name(count): outputs[count], "_": outputs[count]}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CONNECT_S)
        connection.connect(f"\0{address}")
        donor.serve(connection, shell, contents=Contents(values, others=others))
    return sorted(before.keys() - now.keys())
