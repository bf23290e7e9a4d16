"""Which subshells there are (Jupyter enhancement proposal 91)."""

from __future__ import annotations


class Subshells:
    """The ids of the open subshells, in the order of their creation."""

    __slots__ = ("_created", "_ids")

    def __init__(self) -> None:
        """Start with none."""
        self._ids: list[str] = []
        self._created = 0

    def create(self, session: str) -> str:
        """Name a subshell; an id is never used twice in a kernel's life."""
        self._created += 1
        subshell = f"{session[:8]}-{self._created}"
        self._ids.append(subshell)
        return subshell

    def delete(self, subshell: str) -> bool:
        """Forget a subshell; False where there is none of this id."""
        if subshell not in self._ids:
            return False
        self._ids.remove(subshell)
        return True

    def ids(self) -> list[str]:
        """List the open subshells."""
        return list(self._ids)
