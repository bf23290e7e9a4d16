"""A session as named values: what of a shell is carried away, and how it is put into another.

Threads: the main thread of a shell that runs no cell but the one that asks.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from unstuck_worker.transplant import surroundings
from unstuck_worker.transplant.blame import told
from unstuck_worker.transplant.names import LAST, is_variable, out_name, out_number, state_name

if TYPE_CHECKING:
    from collections.abc import Mapping

HISTORY = state_name("inputs and history")
_OWN = frozenset(
    {
        *("In", "Out", "_ih", "_oh", "_dh", "get_ipython", "exit", "quit", "open", "_exit_code"),
        *("__name__", "__doc__", "__loader__", "__spec__", "__package__", "__builtin__"),
        *("__builtins__", "__file__", "_i", "_ii", "_iii", *LAST),
    }
)
"""What each shell has of its own."""


def variables_of(shell: Any) -> dict[str, object]:  # noqa: ANN401  (IPython's is untyped)
    """Give what cells have defined."""
    hidden: Mapping[str, object] = shell.user_ns_hidden
    missing = object()
    return {
        name: value
        for name, value in dict(shell.user_ns).items()
        if isinstance(name, str)
        and name not in _OWN
        and is_variable(name)
        and hidden.get(name, missing) is not value
    }


def collect(shell: Any, *, same_machine: bool) -> tuple[dict[str, object], dict[str, str]]:  # noqa: ANN401
    """Give all that is carried, by name, and why a part of it cannot be.

    ``same_machine`` takes the working folder, ``sys.path`` and the environment too.
    """
    values = variables_of(shell)
    last = {name: shell.user_ns.get(name, "") for name in LAST}
    # A value may have an opinion of its own on being compared.
    values |= {name: one for name, one in last.items() if not (isinstance(one, str) and one == "")}
    values |= {out_name(number): value for number, value in shell.user_ns["_oh"].items()}
    values[HISTORY] = _history_of(shell)
    parts, missing = surroundings.read_parts()
    if not same_machine:
        parts.pop(surroundings.PROCESS, None)
    values |= {state_name(name): part for name, part in parts.items()}
    return values, {state_name(name): reason for name, reason in missing.items()}


def first_of(values: Mapping[str, object]) -> dict[str, object]:
    """Give what must be in place before other values can be read: where modules are found."""
    name = state_name(surroundings.PROCESS)
    return {name: values[name]} if name in values else {}


def _history_of(shell: Any) -> dict[str, Any]:  # noqa: ANN401
    history = shell.history_manager
    return {
        "count": shell.counter,
        "parsed": list(history.input_hist_parsed),
        "raw": list(history.input_hist_raw),
        "folders": list(history.dir_hist),
        "session": history.session_number if history.enabled else 0,
        "unsaved": list(history.db_input_cache) if history.enabled else [],
        "extensions": sorted(shell.extension_manager.loaded),
    }


def adopt(shell: Any, values: Mapping[str, object], *, is_fresh: bool) -> dict[str, str]:  # noqa: ANN401
    """Put values into a shell; give the reasons why some could not be.

    A fresh shell goes on where the session was: its inputs, outputs and execution count. In one
    that has run cells of its own these stay, and the values join what is there.
    """
    missing: dict[str, str] = {}
    variables = {name: value for name, value in values.items() if is_variable(name)}
    last = {name: variables.pop(name) for name in LAST if name in variables}
    shell.user_ns.update(variables)
    _set_last(shell, last if is_fresh else _pushed(shell, last))
    outputs = shell.user_ns["_oh"]
    for name, value in values.items():
        number = out_number(name)
        if number is not None and (is_fresh or number not in outputs):
            outputs[number] = value
            shell.push({f"_{number}": value}, interactive=False)
    if is_fresh and HISTORY in values:
        _restore_history(shell, values[HISTORY])
    for name, value in values.items():
        part = name.removeprefix(state_name(""))
        if part != name and surroundings.is_part(part):
            try:
                surroundings.write_part(part, value)
            except Exception as error:  # noqa: BLE001  (whatever its library says)
                missing[name] = told(error)
    return missing


def _pushed(shell: Any, last: dict[str, object]) -> dict[str, object]:  # noqa: ANN401
    """Give what the underscores are with one more result; nothing where the user has set them."""
    hook, namespace = shell.displayhook, shell.user_ns
    is_set = any(namespace.get(name, "") is not getattr(hook, name) for name in LAST)
    if is_set or "_" not in last:
        return {}
    return dict(zip(LAST, (last["_"], namespace["_"], namespace["__"]), strict=True))


def _set_last(shell: Any, last: dict[str, object]) -> None:  # noqa: ANN401
    """Set the underscores as the results of cells: the next result moves them on."""
    for name, value in last.items():
        setattr(shell.displayhook, name, value)
    shell.push(last, interactive=False)


def _restore_history(shell: Any, found: Any) -> None:  # noqa: ANN401
    history = shell.history_manager
    history.input_hist_parsed[:] = found["parsed"]
    history.input_hist_raw[:] = found["raw"]
    history.dir_hist[:] = found["folders"]
    recent = [*[""] * 3, *found["raw"]][:-4:-1]
    for name, text in zip(("_i", "_ii", "_iii"), recent, strict=True):
        setattr(history, "_i00" if name == "_i" else name, text)
        shell.push({name: text}, interactive=False)
    shell.counter = max(shell.counter, found["count"])
    _save_lines(history, found["session"], found["unsaved"])
    for extension in found["extensions"]:
        with suppress(Exception):  # It is not installed here, or its names have come already.
            shell.extension_manager.load_extension(extension)


def _save_lines(history: Any, session: int, lines: list[Any]) -> None:  # noqa: ANN401
    """Write lines that the lost shell may not have saved any more."""
    if not lines or not history.enabled:
        return
    with (
        suppress(sqlite3.Error),
        sqlite3.connect(str(history.hist_file), timeout=1.0) as connection,
    ):
        connection.executemany(
            "INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?)",
            [(session, *line) for line in lines],
        )
