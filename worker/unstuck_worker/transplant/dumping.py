"""Pickle the variables of a session, in groups that share objects; name what cannot come.

Each variable is first pickled alone: so it is known what it holds, and one that cannot be pickled,
or does not end, costs nobody else. Those that share objects are then pickled once more, together.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from unstuck_worker.transplant.blame import explain
from unstuck_worker.transplant.groups import make_groups
from unstuck_worker.transplant.hand import Hand
from unstuck_worker.transplant.names import shown
from unstuck_worker.transplant.pickling import Finder, Origin, Pickled, VariablePickler

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    Progress = Callable[[int, int, str], None]

DEADLINE_S = 60.0
"""For pickling one variable."""
LISTED_ENTRIES = (1 << 20) + 4096
"""A variable with more objects than this has no list of them: it would be larger than they are."""
_TRIES = 3


class Dumping:
    """Pickles one session, once."""

    def __init__(
        self,
        values: Mapping[str, object],
        namespace: dict[str, Any],
        *,
        others: Mapping[str, object] | None = None,
        takes_along: bool = False,
        deadline_s: float = DEADLINE_S,
        progress: Progress | None = None,
    ) -> None:
        """Pickle ``values``, which live in ``namespace``.

        Args:
            values: what is to come.
            namespace: the globals of the functions of cells.
            others: the session's other variables.
            takes_along: those of them that a value needs come too; else the reader has them.
            deadline_s: for one variable.
            progress: is told how many of how many are done, and which one is next.
        """
        self._values = dict(values)
        others = {} if others is None else others
        self._origin = Origin.of(namespace, {**others, **values})
        self._pool = others if takes_along else {}
        self._known = frozenset[str]() if takes_along else others.keys() - values.keys()
        self._deadline_s = deadline_s
        self._progress = progress
        self._alone: dict[str, Pickled] = {}
        self._objects: dict[str, dict[int, object]] = {}
        """By id, and alive, so that no other object gets one of these ids meanwhile."""
        self._big: list[str] = []
        self.missing: dict[str, str] = {}
        """Why a variable does not come."""

    def groups(self) -> Generator[Pickled]:
        """Give the groups in the order in which they can be read."""
        with Hand() as hand:
            waiting = deque(self._values)
            while waiting:
                name = waiting.popleft()
                if self._progress is not None:
                    done = len(self._values) - len(waiting) - 1
                    self._progress(done, len(self._values), name)
                self._pickle_alone(hand, name)
                waiting += self._take_along(name)
            self._drop_orphans()
            bound = self._bound_by_big(hand)
            needs = {name: pickled.needs - self._known for name, pickled in self._alone.items()}
            objects = {name: self._objects.pop(name).keys() for name in self._alone}
            for group in make_groups(objects, needs, bound):
                if len(group) == 1:
                    yield self._alone.pop(group[0])
                elif (pickled := self._pickle_together(hand, group)) is not None:
                    yield pickled

    def _take_along(self, name: str) -> list[str]:
        """Take what a variable needs of the others; give their names."""
        pickled = self._alone.get(name)
        if pickled is None or not self._pool:
            return []
        wanted = (pickled.needs | pickled.uses) & self._pool.keys() - self._values.keys()
        self._values |= {other: self._pool[other] for other in wanted}
        return list(wanted)

    def _pickle_alone(self, hand: Hand, name: str) -> None:
        pickler, pickled = self._try(hand, (name,))
        if pickled is None:
            return
        self._alone[name] = pickled
        value = self._values[name]
        objects: dict[int, object] = {}
        if pickler.memo_entries > LISTED_ENTRIES:
            self._big.append(name)
        else:
            objects = pickler.identities()
        if isinstance(value, tuple | frozenset) and len(value):
            objects[id(value)] = value  # Another name may have the very same one.
        self._objects[name] = objects

    def _try(self, hand: Hand, group: tuple[str, ...]) -> tuple[VariablePickler, Pickled | None]:
        """Pickle a group; None, and the reason noted, when that fails."""
        values = {name: self._values[name] for name in group}
        tries = _TRIES
        while True:
            pickler = VariablePickler(self._origin, group)
            try:
                pickle = partial(pickler.pickle, values)
                return pickler, hand.call(pickle, self._deadline_s * len(group))
            except Exception as error:  # noqa: BLE001  (whatever an object says of itself)
                tries -= 1
                if tries and type(error) is RuntimeError:
                    continue  # Another thread has changed it meanwhile.
                reason = explain(values, pickler.last, error)
            self.missing.update(dict.fromkeys(group, reason))
            return pickler, None

    def _pickle_together(self, hand: Hand, group: list[str]) -> Pickled | None:
        for name in group:
            del self._alone[name]
        return self._try(hand, tuple(group))[1]

    def _drop_orphans(self) -> None:
        """Leave out what needs something that does not come."""
        while orphans := {
            name: min(lost)
            for name, pickled in self._alone.items()
            if (lost := pickled.needs - self._alone.keys() - self._known)
        }:
            for name, needed in orphans.items():
                del self._alone[name]
                self.missing[name] = f"it needs {shown(needed)}, which cannot come"

    def _bound_by_big(self, hand: Hand) -> list[tuple[str, str]]:
        """Find what shares objects with the variables that have no list of theirs.

        The big ones themselves travel together: whether two of them share is not known.
        """
        big = [name for name in self._big if name in self._alone]
        owners = {key: name for name in self._alone for key in self._objects[name]}
        bound = [(big[0], other) for other in big[1:]]
        for name in big if owners else ():
            finder = Finder(self._origin, (name,), set(owners))
            with suppress(Exception):  # It was pickled before; what counts is what was found.
                hand.call(partial(finder.pickle, {name: self._values[name]}), self._deadline_s)
            bound += [(name, owners[key]) for key in finder.found]
        return bound
