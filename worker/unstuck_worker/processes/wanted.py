"""What a cell that runs in another process takes along: the variables that its code may mean."""

from __future__ import annotations

import re
from typing import Any

from unstuck_worker.transplant import surroundings
from unstuck_worker.transplant.carrying import Contents
from unstuck_worker.transplant.names import state_name
from unstuck_worker.transplant.session import variables_of

_WORD = re.compile(r"[^\W\d]\w*")
_LEFT = frozenset({"open figures"})


def contents_for(shell: Any, code: str) -> Contents:  # noqa: ANN401  (IPython's is untyped)
    """Choose the variables whose names stand anywhere in the code, and all that they need."""
    variables = variables_of(shell)
    words = set(_WORD.findall(code))
    values = {name: value for name, value in variables.items() if name in words}
    parts, missing = surroundings.read_parts()
    values |= {state_name(name): part for name, part in parts.items() if name not in _LEFT}
    others = {name: value for name, value in variables.items() if name not in values}
    return Contents(
        values,
        {state_name(name): reason for name, reason in missing.items()},
        others=others,
        takes_along=True,
    )
