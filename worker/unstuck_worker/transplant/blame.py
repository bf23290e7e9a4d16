"""Say why a variable cannot be pickled: the shortest path to the part that is to blame."""

from __future__ import annotations

from collections import deque
from types import CellType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from unstuck_worker.transplant.hand import Quit, TooLong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_LOOKS = 50_000
MAX_CHARACTERS = 200
_ATOMS = (str, bytes, bytearray, int, float, complex, type(None), ModuleType, type)


def explain(values: Mapping[str, object], last: object, error: BaseException) -> str:
    """Tell what has failed, and which part of the variables it was.

    Args:
        values: the variables that were pickled, by name.
        last: the object that was asked last how it is pickled.
        error: what was raised.
    """
    if isinstance(error, RecursionError) or "recursion" in told(error):
        return "it is nested too deeply"
    text = told(error)
    for name, value in values.items():
        path = None if last is None else find_path(value, last)
        if path:
            return f"{name}{path} ({_kind(last)}): {text}"
        if path == "":
            return text
    return text if last is None or isinstance(error, TooLong) else f"{_kind(last)}: {text}"


def told(error: BaseException) -> str:
    """Tell what was raised, in one line."""
    if isinstance(error, Quit):
        error = error.raised
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  (a user's exception may not be able to say what it is)
        text = ""
    text = text[:MAX_CHARACTERS]
    return text if text and isinstance(error, TypeError | TooLong) else _named(error, text)


def _named(error: BaseException, text: str) -> str:
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def find_path(start: object, aim: object) -> str | None:
    """Give the shortest path by which ``aim`` is reached, as code; None when none is found."""
    if start is aim:
        return ""
    seen = {id(start)}
    waiting: deque[tuple[object, str]] = deque([(start, "")])
    kept: list[object] = []  # What is made on the way must live, or its id is used again.
    while waiting and len(seen) < MAX_LOOKS:
        value, path = waiting.popleft()
        for step, part in _parts(value):
            if part is aim:
                return path + step
            if id(part) not in seen and not isinstance(part, _ATOMS):
                seen.add(id(part))
                kept.append(part)
                waiting.append((part, path + step))
            if len(seen) >= MAX_LOOKS:
                break
    return None


def _parts(value: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401  (whatever a user has)
    """Give what hangs on a value, each with the code that leads there."""
    if isinstance(value, dict):
        for key, part in list(value.items()):
            yield f"[{_key(key)}]", part
    elif isinstance(value, list | tuple | deque):
        yield from ((f"[{at}]", part) for at, part in enumerate(list(value)))
    elif isinstance(value, set | frozenset):
        yield from (("{…}", part) for part in list(value))
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, FunctionType):
        cells = value.__closure__ or ()
        for name, cell in zip(value.__code__.co_freevars, cells, strict=False):
            yield f" (its {name})", _content(cell)
        yield from (
            (f".__defaults__[{at}]", part) for at, part in enumerate(value.__defaults__ or ())
        )
    yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        attributes = {}
    if isinstance(attributes, dict):
        yield from ((f".{name}", part) for name, part in list(attributes.items()))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            try:
                yield f".{name}", object.__getattribute__(value, name)
            except AttributeError:
                continue


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _key(key: object) -> str:
    return repr(key) if isinstance(key, str | int | bytes | bool) and len(repr(key)) <= 40 else "…"
