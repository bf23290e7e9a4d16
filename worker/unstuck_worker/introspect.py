"""Completion, inspection and is_complete, as messaging specification 5.5 has them.

Threads: every function here may be called from any thread while cells run in others. IPython's
completer keeps state during a call, so one request at a time has the turn; inspection and
is_complete keep none.
"""

from __future__ import annotations

import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from IPython.core.completer import ProvisionalCompleterWarning, rectify_completions
from IPython.utils.tokenutil import token_at_cursor

from unstuck_worker.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.completer import Completion
    from IPython.core.interactiveshell import InteractiveShell

    from unstuck.typing import Content

LINE_LIMIT = 1000
"""How many characters before the cursor a completion looks at in its line."""

_STRING = re.compile(r"""(["'])(?:\\.|(?!\1).)*(?:\1|($))""")
"""A string of one line; its second group is there when it is not closed. Always linear in time."""

Cursor = Annotated[int, msgspec.Meta(ge=0)]
R = TypeVar("R", bound=msgspec.Struct)


class CompleteRequest(msgspec.Struct):
    """What a complete_request says; without a cursor it stands at the end."""

    code: str
    cursor_pos: Cursor | None = None


class InspectRequest(msgspec.Struct):
    """What an inspect_request says."""

    code: str
    cursor_pos: Cursor | None = None
    detail_level: Literal[0, 1] = 0
    omit_sections: list[str] = []


class IsCompleteRequest(msgspec.Struct):
    """What an is_complete_request says."""

    code: str


def complete(shell: InteractiveShell, content: Content) -> Content:
    """Answer a complete_request."""
    return answer(CompleteRequest, content, partial(_complete, shell))


def inspect(shell: InteractiveShell, content: Content) -> Content:
    """Answer an inspect_request."""
    return answer(InspectRequest, content, partial(_inspect, shell))


def is_complete(shell: InteractiveShell, content: Content) -> Content:
    """Answer an is_complete_request."""
    return answer(IsCompleteRequest, content, partial(_is_complete, shell))


def answer(kind: type[R], content: Content, serve: Callable[[R], Content]) -> Content:
    """Read ``content`` as ``kind`` and serve it; whatever goes wrong becomes an error reply."""
    try:
        request = msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        return refusal("ValueError", f"bad content of the request: {error}")
    try:
        return serve(request)
    except Exception as error:  # noqa: BLE001  (user objects and transformers raise anything: it is data)
        return refusal(type(error).__name__, str(error))


def refusal(ename: str, evalue: str) -> Content:
    """Give the content of an error reply."""
    return {"status": "error", "ename": ename, "evalue": evalue, "traceback": []}


turns = Turns("completion")


def _complete(shell: InteractiveShell, request: CompleteRequest) -> Content:
    cursor = _clamp(request.cursor_pos, request.code)
    with turns.take():
        found = _find_completions(shell, request.code, cursor)
    return {
        "status": "ok",
        "matches": [completion.text for completion in found],
        "cursor_start": found[0].start if found else cursor,
        "cursor_end": found[0].end if found else cursor,
        "metadata": {
            "_jupyter_types_experimental": [_describe(completion) for completion in found]
        },
    }


def _find_completions(shell: InteractiveShell, code: str, cursor: int) -> list[Completion]:
    """Ask IPython (and through it Jedi), with all completions spanning the same characters.

    The start of a very long line is left out. IPython's expressions need time in the square of its
    length, and hold the GIL for that time: minutes of a hung cell for 100 kB of base64.
    """
    _quieten()
    text = _without_start_of_long_line(code, cursor)
    cut = len(code) - len(text)
    found = list(rectify_completions(text, shell.Completer.completions(text, cursor - cut)))
    for completion in found:
        completion.start += cut
        completion.end += cut
    return found


def _without_start_of_long_line(code: str, cursor: int) -> str:
    """Leave out what stands more than `LINE_LIMIT` before the cursor in its line.

    The quote of a string that goes on behind it is kept: code in a string completes otherwise.
    """
    start = code.rfind("\n", 0, cursor) + 1
    stop = cursor - LINE_LIMIT
    if stop <= start:
        return code
    open_quotes = (m[1] for m in _STRING.finditer(code[start:stop]) if m[2] is not None)
    return code[:start] + next(open_quotes, "") + code[stop:]


def _quieten() -> None:
    """Ignore the warning that IPython's completion interface is provisional.

    Not by ``catch_warnings`` (as IPython's own context manager does): on its exit it undoes any
    filter that a cell, running in another thread, has set meanwhile.
    """
    if warnings.filters[:1] != [("ignore", None, ProvisionalCompleterWarning, None, 0)]:
        warnings.simplefilter("ignore", ProvisionalCompleterWarning)


def _describe(completion: Completion) -> dict[str, Any]:
    """Say what a completion is, for frontends that show types and signatures."""
    return {
        "start": completion.start,
        "end": completion.end,
        "text": completion.text,
        "type": completion.type,
        "signature": completion.signature,
    }


def _inspect(shell: InteractiveShell, request: InspectRequest) -> Content:
    reply: Content = {"status": "ok", "found": False, "data": {}, "metadata": {}}
    name = token_at_cursor(request.code, _clamp(request.cursor_pos, request.code))
    try:
        data = shell.object_inspect_mime(  # IPython's is untyped
            name, detail_level=request.detail_level, omit_sections=set(request.omit_sections)
        )
    except KeyError:
        return reply
    if not shell.enable_html_pager:
        data.pop("text/html", None)
    return {**reply, "found": True, "data": data}


def _is_complete(shell: InteractiveShell, request: IsCompleteRequest) -> Content:
    status, indent = shell.input_transformer_manager.check_complete(request.code)
    if status == "incomplete":
        return {"status": status, "indent": " " * (indent or 0)}
    return {"status": status}


def _clamp(cursor: int | None, code: str) -> int:
    """Keep the cursor inside the code: clients that count UTF-16 units may point behind its end."""
    return len(code) if cursor is None else min(cursor, len(code))
