"""Which variables travel together, and in which order: those that share an object are one group.

Two variables share when a mutable object can be reached from both; what is only named by another
variable (functions and classes of cells) must have come before it.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class _Sets:
    """Disjoint sets of names, joined pair by pair."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parents = {name: name for name in names}

    def find(self, name: str) -> str:
        root = name
        while (parent := self._parents[root]) != root:
            root = parent
        while (parent := self._parents[name]) != root:
            self._parents[name], name = root, parent
        return root

    def join(self, one: str, other: str) -> None:
        self._parents[self.find(other)] = self.find(one)

    def groups(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._parents:
            found.setdefault(self.find(name), []).append(name)
        return found


def make_groups(
    objects: Mapping[str, Collection[int]],
    needs: Mapping[str, Collection[str]],
    bound: Iterable[tuple[str, str]] = (),
) -> list[list[str]]:
    """Put names into groups, each behind the groups that it needs.

    Args:
        objects: for each name the ids of the objects that may not be doubled.
        needs: for each name the names that must have come before.
        bound: pairs of names that are known to share something.
    """
    sets = _Sets(objects)
    owners: dict[int, str] = {}
    for name, ids in objects.items():
        for key in ids:
            owner = owners.setdefault(key, name)
            if owner is not name:
                sets.join(owner, name)
    for one, other in bound:
        sets.join(one, other)
    while True:
        groups = sets.groups()
        wanted = {
            root: dict.fromkeys(sets.find(need) for name in names for need in needs[name])
            for root, names in groups.items()
        }
        for root, roots in wanted.items():
            roots.pop(root, None)
        try:
            order = list(TopologicalSorter(wanted).static_order())
        except CycleError as error:
            first, *rest = error.args[1]
            for other in rest:
                sets.join(first, other)
            continue
        return [groups[root] for root in order]
