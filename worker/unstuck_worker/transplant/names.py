"""What is carried, by name: variables, entries of ``Out``, and the state of the session.

A variable's name is itself; the others begin with a character that no variable's name has.
"""

from __future__ import annotations

from typing import Any, NoReturn

LAST = ("_", "__", "___")
"""The last results, which IPython keeps as variables."""
_OUT = "%out "
_STATE = "%state "


def out_name(number: int) -> str:
    """Name the entry of ``Out`` of one cell."""
    return f"{_OUT}{number}"


def state_name(what: str) -> str:
    """Name a part of the session's state that is no variable."""
    return f"{_STATE}{what}"


def out_number(name: str) -> int | None:
    """Give the number of the cell whose entry of ``Out`` this is."""
    return int(name.removeprefix(_OUT)) if name.startswith(_OUT) else None


def is_variable(name: str) -> bool:
    """Tell whether the name stands in the cells' namespace."""
    return not name.startswith("%")


def is_users(name: str) -> bool:
    """Tell whether a cell has made a variable of this name."""
    return is_variable(name) and name not in LAST


def shown(name: str) -> str:
    """Write a name as a user knows it."""
    number = out_number(name)
    return name.removeprefix(_STATE) if number is None else f"Out[{number}]"


class Namespace:
    """Stands in a pickle for the namespace of the cells, wherever it is read."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return namespace, ()


def namespace() -> NoReturn:
    """Give the cells' namespace; the reader of a pickle has a function of its own for this."""
    raise LookupError("the namespace is known only to the reader of a group")


def variable(name: str) -> NoReturn:
    """Give a variable that came before; the reader of a pickle has its own function for this."""
    raise LookupError(f"{name} is known only to the reader of a group")
