"""Carry the variables of some code to another namespace, in this process."""

from __future__ import annotations

import builtins
import platform
import textwrap
from typing import Any

from unstuck_worker.transplant.dumping import Dumping
from unstuck_worker.transplant.hand import Hand
from unstuck_worker.transplant.loading import Loading


def namespace_of(code: str = "") -> dict[str, Any]:
    """Run code as cells of a session of its own."""
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    exec(textwrap.dedent(code), namespace)
    return namespace


class Carriage:
    """What has come of the variables of one namespace in another."""

    def __init__(
        self, namespace: dict[str, Any], *, deadline_s: float = 20.0, python: str | None = None
    ) -> None:
        values = {name: value for name, value in namespace.items() if not name.startswith("__")}
        dumping = Dumping(values, namespace, deadline_s=deadline_s)
        self.groups = list(dumping.groups())
        self.not_pickled = dumping.missing
        self.there = namespace_of()
        loading = Loading(self.there, python or platform.python_version(), deadline_s=deadline_s)
        with Hand() as hand:
            for group in self.groups:
                buffers = [bytearray(buffer.raw()) for buffer in group.buffers]
                loading.read(hand, group.names, group.body, buffers, has_code=group.has_code)
        self.not_read = loading.missing
        self.there.update(loading.values)

    @property
    def names(self) -> list[set[str]]:
        """The groups by their names."""
        return [set(group.names) for group in self.groups]


def carry(code: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Carry the variables of some code; all of them come."""
    carriage = Carriage(namespace_of(code), **options)
    assert (carriage.not_pickled, carriage.not_read) == ({}, {})
    return carriage.there
