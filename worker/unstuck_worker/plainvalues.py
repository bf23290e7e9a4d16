"""Format plain values fast: a number or a string has text only, unless someone registered more.

IPython asks twelve formatters about each value, which takes a sixth of the time of a small cell.
What is given here is what these would give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core import formatters

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN = frozenset({int, float, complex, bool, str, bytes})
"""No subclasses: those may have methods that make pictures of them."""
_BY_REPR = frozenset({int, str, bytes})
"""Of these the repr is one line, and no setting of the formatter changes it."""
_printers: Any = formatters.PlainTextFormatter().type_printers
_REPR = _printers[int]
"""What IPython writes them with."""
_TEXT = "text/plain"
_PRINTERS = ("type_printers", "singleton_printers", "deferred_printers")
_OWN = frozenset(
    {
        formatters.HTMLFormatter,
        formatters.MarkdownFormatter,
        formatters.SVGFormatter,
        formatters.PNGFormatter,
        formatters.PDFFormatter,
        formatters.JPEGFormatter,
        formatters.LatexFormatter,
        formatters.JSONFormatter,
        formatters.JavascriptFormatter,
        formatters.IPythonDisplayFormatter,
        formatters.MimeBundleFormatter,
    }
)
"""Those that give nothing for a value that nobody has registered a printer for."""


def format_plainly(formatter: Any, value: object) -> dict[str, Any] | None:  # noqa: ANN401  (IPython's)
    """Format a value as ``formatter.format`` would.

    Args:
        formatter: the shell's `IPython.core.formatters.DisplayFormatter`.
        value: what a cell has given.

    Returns:
        The MIME bundle; None for a value that is not plain, or that someone formats otherwise.
    """
    kind = type(value)
    if kind not in _PLAIN or type(formatter) is not formatters.DisplayFormatter:
        return None
    if "format" in formatter.__dict__:  # Somebody has put another in its place.
        return None
    if any(_may_format(other, kind, value) for other in _others(formatter)):
        return None
    text = _write(formatter.formatters[_TEXT], kind, value)
    return None if text is None or isinstance(text, tuple) else {_TEXT: text}


def _write(formatter: Any, kind: type, value: object) -> Any:  # noqa: ANN401
    """Give a value's text: its repr where IPython's pretty printer would come to that."""
    is_ipythons = type(formatter) is formatters.PlainTextFormatter
    if is_ipythons and kind in _BY_REPR:
        by_type: Any = formatter.type_printers
        by_id: Any = formatter.singleton_printers
        if by_type.get(kind) is _REPR and id(value) not in by_id:
            try:
                return repr(value)
            except ValueError:
                pass  # An integer of thousands of digits: IPython shows the error.
    return formatter(value)


def _others(formatter: Any) -> Iterator[Any]:  # noqa: ANN401
    """Give all formatters but the one for text."""
    yield formatter.ipython_display_formatter
    yield formatter.mimebundle_formatter
    for mime_type, other in formatter.formatters.items():
        if mime_type != _TEXT:
            yield other


def _may_format(formatter: Any, kind: type, value: object) -> bool:  # noqa: ANN401
    """Tell whether a formatter could have something to say about a value."""
    if type(formatter) not in _OWN:
        return True
    values = formatter._trait_values  # noqa: SLF001  (a trait's own look-up costs ten times as much)
    try:
        by_type, by_id, by_name = [values[name] for name in _PRINTERS]
    except KeyError:
        return True  # Not built yet: the first look-up does that.
    if by_type and (kind in by_type or object in by_type):
        return True
    if by_id and id(value) in by_id:
        return True
    return bool(by_name) and not _NAMES.isdisjoint(by_name)


_NAMES = frozenset(("builtins", kind.__name__) for kind in (object, *_PLAIN))
