"""Draw docs/lifecycle.md: ``PYTHONPATH=kernel:broker python tests/lifecycle_page.py``."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from unstuck_broker import lifecycle
from unstuck_broker.lifecycle import TRANSITIONS, E, S

PAGE = Path(__file__).parents[1] / "docs" / "lifecycle.md"

_HEAD = """\
# The life of a worker

The broker knows its worker as one state, and `Life.advance` in
`broker/unstuck_broker/lifecycle.py` is the only thing that changes it. An event that the table does
not have in a state is a bug of the broker: it raises, and changes nothing. What happens to running
and waiting requests is in `recovery.py` and `interrupts.py` beside it.

This page is drawn from the table, and a test compares the two. After a change of the table run
`PYTHONPATH=kernel:broker python tests/lifecycle_page.py`.
"""


def draw() -> str:
    """Give the whole page."""
    return "\n".join([_HEAD, *_states(), *_events(), *_table(), *_diagram()])


def _comments() -> dict[str, str]:
    """Read the comment under each member of `S`: a string that Python itself throws away."""
    tree = ast.parse(inspect.getsource(lifecycle))
    states = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == S.__name__)
    found: dict[str, str] = {}
    for node, after in zip(states.body, states.body[1:], strict=False):
        match node, after:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(ast.Constant(str() as text)):
                found[name] = " ".join(text.split())
            case _:
                pass
    return found


def _states() -> list[str]:
    comments = _comments()
    rows = [f"| {state.name} | {comments[state.name]} |" for state in S]
    return ["## States", "", "| state | what is true in it |", "|---|---|", *rows, ""]


def _events() -> list[str]:
    rows = [f"| {event.name} | {event.value} |" for event in E]
    return ["## Events", "", "| event | what it says |", "|---|---|", *rows, ""]


def _table() -> list[str]:
    """Draw the states as rows, the events as columns."""
    lines = ["## Transitions", "", "An empty field is an illegal pair.", ""]
    lines += ["| | " + " | ".join(event.name for event in E) + " |", "|---" * (len(E) + 1) + "|"]
    for state in S:
        after = [TRANSITIONS.get((state, event)) for event in E]
        lines.append(
            f"| **{state.name}** | " + " | ".join(a.name if a else "" for a in after) + " |"
        )
    return [*lines, ""]


def _diagram() -> list[str]:
    """Draw the states with an arrow for each pair of them; events that lead alike share it."""
    arrows: dict[tuple[S, S], list[str]] = {}
    for (state, event), after in TRANSITIONS.items():
        arrows.setdefault((state, after), []).append(event.name)
    lines = ["## Diagram", "", "```mermaid", "stateDiagram-v2", f"    [*] --> {S.STARTING.name}"]
    lines += [
        f"    {state.name} --> {after.name}: {', '.join(events)}"
        for (state, after), events in arrows.items()
    ]
    return [*lines, f"    {S.DEAD.name} --> [*]", "```", ""]


if __name__ == "__main__":
    PAGE.write_text(draw(), "utf-8")
