"""Read the groups of a session; name what cannot be read."""

from __future__ import annotations

import platform
from functools import partial
from typing import TYPE_CHECKING, Any

from unstuck_worker.transplant.blame import told
from unstuck_worker.transplant.names import shown
from unstuck_worker.transplant.pickling import VariableUnpickler, collector_off

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from unstuck_worker.transplant.hand import Hand

DEADLINE_S = 120.0
"""For reading one group: it may import a library."""


class Loading:
    """Reads one session, once; what it has read is in ``values``, and nowhere else yet."""

    def __init__(
        self,
        namespace: dict[str, Any],
        python: str,
        *,
        known: Mapping[str, object] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Read for ``namespace`` what was pickled by that version of Python.

        ``known`` has what did not have to come, by name.
        """
        self._known = known or {}
        self._namespace = namespace
        self._python = python
        self._deadline_s = deadline_s
        self.values: dict[str, object] = {}
        self.missing: dict[str, str] = {}

    def read(
        self,
        hand: Hand,
        names: Sequence[str],
        body: Any,  # noqa: ANN401  (what has a buffer)
        buffers: Iterable[Any],
        *,
        has_code: bool,
    ) -> None:
        """Read one group."""
        try:
            if has_code and _minor(self._python) != _minor(platform.python_version()):
                raise Unreadable(
                    f"it holds code of Python {_minor(self._python)}, and this is"
                    f" {_minor(platform.python_version())}"
                )
            unpickler = VariableUnpickler(body, buffers, self._namespace, self._variable)
            with collector_off():
                load = partial(_load, unpickler, self._namespace)
                found: object = hand.call(load, self._deadline_s)
            if not isinstance(found, dict) or set(found) != set(names):
                raise Unreadable("it holds something else")
        except Exception as error:  # noqa: BLE001  (whatever an object says when it is made)
            self.missing.update(dict.fromkeys(names, told(error)))
            return
        self.values.update(found)

    def _variable(self, name: str) -> object:
        try:
            return self.values[name]
        except KeyError:
            if name in self._known:
                return self._known[name]
            raise Unreadable(f"it needs {shown(name)}, which has not come") from None


class Unreadable(TypeError):
    """A group that cannot be read here."""


def _load(unpickler: VariableUnpickler, namespace: dict[str, Any]) -> object:
    missing = object()
    builtins = namespace.get("__builtins__", missing)
    try:
        return unpickler.load()
    finally:
        # cloudpickle puts a dict there for the functions that it makes.
        if builtins is missing:
            namespace.pop("__builtins__", None)
        else:
            namespace["__builtins__"] = builtins


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
