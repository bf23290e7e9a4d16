"""Plain values are formatted as IPython formats them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter, HTMLFormatter, PlainTextFormatter

from unstuck_worker.plainvalues import format_plainly

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(), st.binary(), st.complex_numbers()
)


class Count(int):
    """A number that has a picture."""

    def _repr_html_(self) -> str:
        return f"<b>{int(self)}</b>"


def make_formatter() -> Any:  # noqa: ANN401  (IPython's, untyped)
    formatter: Any = DisplayFormatter()
    formatter.format(0)
    return formatter


FORMATTER = make_formatter()


@given(PLAIN)
def test_a_plain_value_gets_what_ipython_gives_it(value: object) -> None:
    assert (format_plainly(FORMATTER, value), {}) == FORMATTER.format(value)


def test_a_printer_for_a_plain_type_or_value_is_asked() -> None:
    formatter = make_formatter()
    text: Any = formatter.formatters["text/plain"]
    assert format_plainly(formatter, 7) == {"text/plain": "7"}
    text.for_type(int, lambda value, printer, _cycle: printer.text(f"<{value}>"))
    assert format_plainly(formatter, 7) == {"text/plain": "<7>"}
    word = "a word"
    text.singleton_printers[id(word)] = lambda _value, printer, _cycle: printer.text("that one")
    assert format_plainly(formatter, word) == {"text/plain": "that one"}


def test_a_number_that_is_too_long_to_write_is_ipythons() -> None:
    assert format_plainly(make_formatter(), 10**10_000) is None


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, Count(3), object(), int, (1).__add__])
def test_what_is_no_plain_value_is_left_to_ipython(value: object) -> None:
    assert format_plainly(make_formatter(), value) is None


def test_before_the_formatters_have_looked_anything_up_ipython_does_it() -> None:
    assert format_plainly(DisplayFormatter(), 1) is None


def add_type(formatter: Any) -> None:  # noqa: ANN401
    formatter.formatters["text/html"].for_type(int, lambda value: f"<i>{value}</i>")


def add_base(formatter: Any) -> None:  # noqa: ANN401
    formatter.formatters["text/html"].for_type(object, lambda value: f"<i>{value}</i>")


def add_name(formatter: Any) -> None:  # noqa: ANN401
    formatter.formatters["text/latex"].for_type_by_name(
        "builtins", "int", lambda value: f"${value}$"
    )


def add_bundle(formatter: Any) -> None:  # noqa: ANN401
    formatter.mimebundle_formatter.for_type(int, lambda value, **_: {"text/x": str(value)})


def show_itself(formatter: Any) -> None:  # noqa: ANN401
    formatter.ipython_display_formatter.for_type(int, lambda _value: None)


def replace_traits(formatter: Any) -> None:  # noqa: ANN401
    formatter.formatters["text/html"].type_printers = {int: lambda value: f"<u>{value}</u>"}


def replace_format(formatter: Any) -> None:  # noqa: ANN401
    formatter.format = lambda _value: ({"text/plain": "mine"}, {})


def add_formatter(formatter: Any) -> None:  # noqa: ANN401
    class Mine(HTMLFormatter):
        format_type = "text/mine"

        def __call__(self, obj: object) -> str:
            return f"mine {obj}"

    formatter.register_formatter(Mine(parent=formatter))


def print_hexadecimal(formatter: Any) -> None:  # noqa: ANN401
    text: PlainTextFormatter = formatter.formatters["text/plain"]
    text.for_type(int, lambda value, printer, _cycle: printer.text(hex(value)))


@pytest.mark.parametrize(
    "change",
    [
        add_type,
        add_base,
        add_name,
        add_bundle,
        show_itself,
        replace_traits,
        replace_format,
        add_formatter,
        print_hexadecimal,
    ],
)
def test_what_a_user_has_registered_is_used(change: Callable[[Any], None]) -> None:
    formatter = make_formatter()
    change(formatter)
    expected = formatter.format(255)
    assert expected != ({"text/plain": "255"}, {})
    bundle = format_plainly(formatter, 255)
    assert bundle is None or (bundle, {}) == expected
