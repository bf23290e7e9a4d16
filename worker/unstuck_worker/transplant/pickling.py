"""Pickle variables by cloudpickle, and read them again, in the terms of a session.

Functions of cells keep the namespace of the cells as their globals. A function or class that a
variable of its own holds is named by the others, so that it travels once.
"""

# cloudpickle has no types.
# mypy: allow-untyped-calls

from __future__ import annotations

import gc
import io
import pickle
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from sys import getrefcount
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import cloudpickle

from unstuck_worker.transplant import names, recipes
from unstuck_worker.transplant.identity import Identities
from unstuck_worker.transplant.tensors import Storages

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

PROTOCOL = 5
OUT_OF_BAND_BYTES = 1 << 16
"""Buffers from this size on stay out of the pickle: they are not copied."""
_MEMO_ENTRY_BYTES = 16


@dataclass(frozen=True)
class Origin:
    """The session that is pickled."""

    namespace: dict[str, Any]
    defined: Mapping[int, str]
    """The names of the functions and classes that variables hold, by their ids."""
    storages: Storages = field(default_factory=Storages)
    identities: Identities = field(default_factory=Identities)
    plain: set[type] = field(default_factory=set)
    """Types whose objects are pickled as they say themselves, seen so far."""

    @classmethod
    def of(cls, namespace: dict[str, Any], values: Mapping[str, object]) -> Origin:
        """Find what the values define."""
        defined = {
            id(value): name
            for name, value in reversed(list(values.items()))
            if names.is_variable(name) and isinstance(value, FunctionType | type)
        }
        return cls(namespace, defined)


@dataclass(frozen=True)
class Pickled:
    """Some variables as bytes."""

    names: tuple[str, ...]
    body: bytes
    buffers: Sequence[pickle.PickleBuffer]
    needs: frozenset[str]
    """What must have been read before."""
    has_code: bool
    """It has bytecode, which only the same version of Python can run."""
    uses: frozenset[str] = frozenset()
    """Names that its functions may look up in the namespace of the cells."""

    @property
    def size_bytes(self) -> int:
        """How much there is to carry."""
        return len(self.body) + sum(buffer.raw().nbytes for buffer in self.buffers)


class VariablePickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Pickles the variables of one group."""

    def __init__(self, origin: Origin, members: Iterable[str]) -> None:
        """Pickle ``members`` by value, and name other functions and classes of the session."""
        self._file = io.BytesIO()
        self.buffers: list[pickle.PickleBuffer] = []
        super().__init__(self._file, protocol=PROTOCOL, buffer_callback=self._keep)
        self.globals_ref[id(origin.namespace)] = names.Namespace()
        self._origin = origin
        self._members = frozenset(members)
        self._by_value: set[int] = set()
        self._cells: dict[int, CellType] = {}
        """Of closures: they come empty, and are filled when their functions are there."""
        self.needs: set[str] = set()
        self.has_code = False
        self.uses: set[str] = set()
        self.last: object = None
        """The object that was asked last how it is pickled: where it failed, the one to blame."""

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer out of the pickle, or leave a small one in."""
        if buffer.raw().nbytes < OUT_OF_BAND_BYTES:
            return True
        self.buffers.append(buffer)
        return False

    def reducer_override(self, obj: Any) -> Any:  # noqa: ANN401  (the pickler's)
        """Say how an object is pickled; NotImplemented: as it says itself."""
        self.last = obj
        kind = type(obj)
        if kind in self._origin.plain:
            return NotImplemented
        if isinstance(obj, FunctionType | type):
            name = self._origin.defined.get(id(obj))
            if name is not None and name not in self._members:
                self.needs.add(name)
                return names.variable, (name,)
            reduced = super().reducer_override(obj)
            if reduced is not NotImplemented:
                self._by_value.add(id(obj))
            return reduced
        if isinstance(obj, CodeType):
            self.has_code = True
        if id(obj) in self._cells:
            return CellType, ()
        if kind in recipes.KINDS:
            return recipes.reduce(obj)
        reduced = self._origin.storages.reduce(obj)
        if reduced is NotImplemented and kind not in (CodeType, CellType):
            self._origin.plain.add(kind)
        return reduced

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:  # noqa: ANN401
        """Leave the globals of a cell's function behind: they come as variables.

        What a closure shares with other functions is shared afterwards, too: cloudpickle would
        give each function a copy of its own.
        """
        make, arguments, (state, slots), *rest, set_state = super()._dynamic_function_reduce(func)
        if func.__globals__ is self._origin.namespace:
            slots["__globals__"] = {}
            self.uses |= _names_in(func.__code__)
        closure = func.__closure__ or ()
        self._cells.update((id(cell), cell) for cell in closure)
        contents = [(cell, cell.cell_contents) for cell in closure if _is_full(cell)]
        slots["__closure__"] = None
        arguments = (*arguments[:-1], func.__closure__)
        return (make, arguments, (set_state, (state, slots), contents), *rest, set_function_state)

    def pickle(self, values: Mapping[str, object]) -> Pickled:
        """Pickle the group."""
        self.dump(dict(values))
        needs, body = frozenset(self.needs), self._file.getvalue()
        uses = frozenset(self.uses)
        return Pickled(tuple(values), body, self.buffers, needs, self.has_code, uses)

    @property
    def memo_entries(self) -> int:
        """About how many objects were met: the table's size, which is all that can be asked."""
        return int(self.__sizeof__()) // _MEMO_ENTRY_BYTES

    def identities(self) -> dict[int, object]:
        """Give what was met, may not be doubled, and has more than one owner, by id.

        What two variables share has two owners, or its one owner is shared.
        """
        matters, by_value = self._origin.identities, self._by_value
        one_owner = _references_of_one_owner()
        with collector_off():  # One tuple for each object is made here.
            memo: dict[int, tuple[int, object]] = self.memo.copy()
            kept = {
                key: obj
                for key, (_, obj) in memo.items()
                if getrefcount(obj) > one_owner
                and matters[type(obj)]
                and (key in by_value or not isinstance(obj, FunctionType))
            }
            del memo
        return {key: obj for key, obj in kept.items() if key not in matters.of_classes}


@cache
def _references_of_one_owner() -> int:
    """Count the references to an object with one owner, seen as `identities` sees it."""
    owner: list[list[int]] = [[]]
    pickler = pickle.Pickler(io.BytesIO(), PROTOCOL)
    pickler.dump(owner)
    memo: Any = pickler.memo.copy()
    counts = {key: getrefcount(obj) for key, (_, obj) in memo.items()}
    return counts[id(owner[0])]


@contextmanager
def collector_off() -> Generator[None]:
    """Make objects without looking for garbage among them all the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _names_in(code: CodeType) -> set[str]:
    """List the names that code and what it defines look up anywhere."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def _is_full(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (raises when it is empty)
    except ValueError:
        return False
    return True


def set_function_state(function: FunctionType, state: tuple[Any, Any, Any]) -> None:
    """Fill the closure of a function that was read, and set what else it has."""
    set_state, of_function, contents = state
    for cell, content in contents:
        cell.cell_contents = content
    set_state(function, of_function)


class Finder(VariablePickler):
    """Looks for known objects in a variable that is too big to list all of its own."""

    def __init__(self, origin: Origin, members: Iterable[str], wanted: set[int]) -> None:
        """Look for objects of these ids."""
        super().__init__(origin, members)
        self._wanted = wanted
        self.found: set[int] = set()

    def persistent_id(self, obj: Any) -> None:  # noqa: ANN401  (the pickler's)
        """See an object."""
        if id(obj) in self._wanted:
            self.found.add(id(obj))


class VariableUnpickler(pickle.Unpickler):
    """Reads one group."""

    def __init__(
        self,
        body: Any,  # noqa: ANN401  (what has a buffer)
        buffers: Iterable[Any],
        namespace: dict[str, Any],
        variable: Callable[[str], object],
    ) -> None:
        """Read what refers to ``namespace``; ``variable`` gives what came before."""
        super().__init__(io.BytesIO(body), buffers=buffers)
        self._own = {"namespace": lambda: namespace, "variable": variable}

    def find_class(self, module_name: str, global_name: str, /) -> Any:  # noqa: ANN401
        """Find a global; what only the reader knows is given by it."""
        if module_name == names.__name__ and global_name in self._own:
            return self._own[global_name]
        return super().find_class(module_name, global_name)
