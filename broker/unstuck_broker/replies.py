"""The contents of all messages that the broker makes by itself, per messaging specification 5.5."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from unstuck import __version__, kernel_protocol_version
from unstuck.protocol import StreamName
from unstuck.typing import MsgType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unstuck_broker.wire import Request

encode = msgspec.json.Encoder().encode

BUSY = encode({"execution_state": "busy"})
IDLE = encode({"execution_state": "idle"})
STARTING = encode({"execution_state": "starting"})
RESTARTING = encode({"execution_state": "restarting"})
STDERR = StreamName.stderr
OK = encode({"status": "ok"})
ABORTED = encode({"status": "aborted"})

_HELP_LINKS = (
    ("Python Reference", "https://docs.python.org/{}.{}"),
    ("IPython Reference", "https://ipython.org/documentation.html"),
    ("NumPy Reference", "https://numpy.org/doc/stable/reference/"),
    ("SciPy Reference", "https://docs.scipy.org/doc/scipy/reference/"),
    ("Matplotlib Reference", "https://matplotlib.org/contents.html"),
    ("SymPy Reference", "http://docs.sympy.org/latest/index.html"),
    ("pandas Reference", "https://pandas.pydata.org/pandas-docs/stable/"),
)


class _Traceback(Struct):
    traceback: list[str] = []


_traceback = msgspec.json.Decoder(_Traceback)


def nobodys_header(session: str) -> bytes:
    """Build the header of a cell that nobody has sent: the parent of what belongs to no request.

    An empty parent would not do: jupyter_console takes it for its own. jupyter_server hears only
    what belongs to a type such as this one.
    """
    return encode(
        {
            "msg_id": f"{session}_nobody",
            "msg_type": MsgType.execute_request,
            "session": session,
            "username": "kernel",
            "version": kernel_protocol_version,
        }
    )


def reply_type(msg_type: str) -> str:
    """Name the reply to a request: ``execute_request`` gives ``execute_reply``."""
    return msg_type.removesuffix("_request") + "_reply"


def has_reply(msg_type: str) -> bool:
    """Tell whether the specification has a reply to this type; comm messages have none."""
    return msg_type not in (MsgType.comm_open, MsgType.comm_msg, MsgType.comm_close)


def error(ename: str, evalue: str, traceback: Sequence[str] = (), **more: object) -> bytes:
    """Build an error reply."""
    return encode(
        {"status": "error", "ename": ename, "evalue": evalue, "traceback": traceback, **more}
    )


def error_output(ename: str, evalue: str, traceback: Sequence[str] = ()) -> bytes:
    """Build the iopub ``error`` message that belongs to an error reply."""
    return encode({"ename": ename, "evalue": evalue, "traceback": traceback or [evalue]})


def stream(name: StreamName, text: str) -> bytes:
    """Build a ``stream`` message; a lone surrogate from user code is replaced."""
    try:
        return encode({"name": name, "text": text})
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
        return encode({"name": name, "text": text})


@lru_cache(maxsize=1)
def kernel_info(banner: str) -> bytes:
    """Build the kernel_info_reply; it needs no worker.

    Args:
        banner: IPython's; until a worker has told it, Python's own.
    """
    major, minor, *_ = sys.version_info
    return encode(
        {
            "status": "ok",
            "protocol_version": kernel_protocol_version,
            "implementation": "unstuck",
            "implementation_version": __version__,
            "language_info": {
                "name": "python",
                "version": sys.version.split()[0],
                "mimetype": "text/x-python",
                "codemirror_mode": {"name": "ipython", "version": 3},
                "pygments_lexer": "ipython3",
                "nbconvert_exporter": "python",
                "file_extension": ".py",
            },
            "banner": banner or f"Python {sys.version}\nunstuck {__version__}",
            "help_links": [
                {"text": text, "url": url.format(major, minor)} for text, url in _HELP_LINKS
            ],
            "debugger": False,
            "supported_features": ["kernel subshells"],
        }
    )


def unanswered(request: Request, why: str = "the worker does not answer in time") -> bytes:
    """Answer an introspection that the worker could not answer, honestly."""
    match request.kind:
        case MsgType.complete_request:
            at = cursor_position(request)
            return encode(
                {
                    "status": "ok",
                    "matches": [],
                    "cursor_start": at,
                    "cursor_end": at,
                    "metadata": {"unstuck": {"timed_out": True}},
                }
            )
        case MsgType.inspect_request:
            return encode({"status": "ok", "found": False, "data": {}, "metadata": {}})
        case MsgType.is_complete_request:
            return encode({"status": "unknown", "indent": ""})
        case _:
            return error("TimeoutError", why, history=[])


def unknown_subshell(subshell: str) -> str:
    """Say that there is no such subshell, in the words that clients of ipykernel know."""
    return f"Unknown subshell_id {subshell!r}"


def traceback_of(content: bytes) -> list[str]:
    """Read the traceback of an error reply; empty where there is none."""
    try:
        return _traceback.decode(content).traceback
    except msgspec.MsgspecError:
        return []


def cursor_position(request: Request) -> int:
    """Read ``cursor_pos`` of a completion request; the end of the code where there is none."""
    try:
        content: dict[str, Any] = msgspec.json.decode(request.content_json)
        at = content.get("cursor_pos")
        return at if isinstance(at, int) else len(content.get("code", ""))
    except (msgspec.MsgspecError, TypeError):
        return 0
