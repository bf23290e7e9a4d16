"""Completion, inspection, completeness and history, idle and beside a busy cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from conftest import StartKernel
    from e2e.kernel_client import Kernel


def _complete(kernel: Kernel, code: str, position: int | None = None) -> dict[str, Any]:
    position = len(code) if position is None else position
    return kernel.request("complete_request", {"code": code, "cursor_pos": position}).content


def _inspect(kernel: Kernel, code: str, level: int = 0) -> dict[str, Any]:
    content = {"code": code, "cursor_pos": len(code), "detail_level": level}
    return kernel.request("inspect_request", content).content


def test_names_complete_with_their_range_and_types(kernel: Kernel) -> None:
    kernel.run_ok("a_long_name = 1\na_longer_name = 2")
    content = _complete(kernel, "print(a_long")
    assert {"a_long_name", "a_longer_name"} <= set(content["matches"])
    assert (content["cursor_start"], content["cursor_end"]) == (6, 12)
    types = content["metadata"]["_jupyter_types_experimental"]
    assert {"a_long_name", "a_longer_name"} <= {entry["text"] for entry in types}
    for entry in types:
        assert {"start", "end", "text", "type"} <= entry.keys()


def test_positions_count_characters_also_beyond_the_basic_plane(kernel: Kernel) -> None:
    kernel.run_ok("a_long_name = 1")
    content = _complete(kernel, "s = '🐍é'; a_long_n")
    assert content["matches"] == ["a_long_name"]
    assert (content["cursor_start"], content["cursor_end"]) == (10, 18)


def test_no_match_is_an_empty_reply(kernel: Kernel) -> None:
    content = _complete(kernel, "no_such_name_at_all")
    assert content["status"] == "ok"
    assert content["matches"] == []


def test_magics_and_attributes_complete(kernel: Kernel) -> None:
    assert "%matplotlib" in _complete(kernel, "%matplotl")["matches"]
    kernel.run_ok("class C:\n    attribute_of_c = 1\nc = C()")
    matches = _complete(kernel, "c.attr")["matches"]
    assert any(match.endswith("attribute_of_c") for match in matches)


def test_completion_in_the_middle_of_code_uses_the_cursor(kernel: Kernel) -> None:
    kernel.run_ok("a_long_name = 1")
    content = _complete(kernel, "x = a_lon + 1", position=9)
    assert "a_long_name" in content["matches"]
    assert content["cursor_start"] == 4


def test_inspection_finds_documentation_and_source(kernel: Kernel) -> None:
    kernel.run_ok("def documented(x):\n    'Says what it does.'\n    return x + 1")
    content = _inspect(kernel, "documented")
    assert content["found"]
    assert "Says what it does." in content["data"]["text/plain"]
    assert "return x + 1" not in content["data"]["text/plain"]
    assert "return" in _inspect(kernel, "documented", level=1)["data"]["text/plain"]


def test_inspection_within_a_call_shows_the_function(kernel: Kernel) -> None:
    content = _inspect(kernel, "len(")
    assert content["found"]
    assert "number of items" in content["data"]["text/plain"]


def test_inspection_of_an_unknown_name_is_not_found(kernel: Kernel) -> None:
    content = _inspect(kernel, "no_such_name_at_all")
    assert (content["status"], content["found"], content["data"]) == ("ok", False, {})


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("x = 1", "complete"),
        ("for i in range(3):", "incomplete"),
        ("x = (", "incomplete"),
        ("x = = 1", "invalid"),
        ("await f()", "complete"),
        ("%time 1", "complete"),
    ],
)
def test_completeness_of_code(kernel: Kernel, code: str, status: str) -> None:
    content = kernel.request("is_complete_request", {"code": code}).content
    assert content["status"] == status


def test_incomplete_code_says_how_to_indent(kernel: Kernel) -> None:
    content = kernel.request("is_complete_request", {"code": "if x:\n    if y:"}).content
    assert content["indent"] == "        "


def _history(kernel: Kernel, **content: object) -> list[list[Any]]:
    request = {"raw": True, "output": False, **content}
    history: list[list[Any]] = kernel.request("history_request", request).content["history"]
    return history


def test_history_has_a_tail_a_range_and_a_search(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    for code in ("first_entry = 1", "'an output'", "first_entry + 1"):
        kernel.run_ok(code)
    tail = _history(kernel, hist_access_type="tail", n=3)
    assert [entry[2] for entry in tail] == ["first_entry = 1", "'an output'", "first_entry + 1"]
    ranged = _history(kernel, hist_access_type="range", session=0, start=2, stop=4)
    assert [entry[1:] for entry in ranged] == [[2, "'an output'"], [3, "first_entry + 1"]]
    found = _history(kernel, hist_access_type="search", pattern="first_entry*", unique=True)
    assert {entry[2] for entry in found} == {"first_entry = 1", "first_entry + 1"}
    outputs = _history(kernel, hist_access_type="range", session=0, start=2, stop=3, output=True)
    assert outputs[0][2] == ["'an output'", "'an output'"]


def test_cells_that_are_not_stored_are_not_in_the_history(kernel: Kernel) -> None:
    kernel.run_ok("'not in history'", store_history=False)
    kernel.run_ok("'in history'")
    entries = [entry[2] for entry in _history(kernel, hist_access_type="tail", n=2)]
    assert "'not in history'" not in entries
    assert entries[-1] == "'in history'"


@ours
def test_an_unknown_history_access_gives_no_entries_or_an_error(kernel: Kernel) -> None:
    content = kernel.request("history_request", {"hist_access_type": "none"}).content
    assert content["status"] == "error" or content["history"] == []


@ours
def test_a_busy_cell_does_not_stop_introspection(kernel: Kernel) -> None:
    kernel.run_ok("import time\na_long_name = 1\n'warm';")
    _complete(kernel, "a_long")
    busy = kernel.execute("print('on'); time.sleep(3)")
    kernel.wait_for_text(busy, "on")
    assert "a_long_name" in _complete(kernel, "a_long")["matches"]
    assert _inspect(kernel, "len")["found"]
    content = kernel.request("is_complete_request", {"code": "x = 1"}).content
    assert content["status"] == "complete"
    assert _history(kernel, hist_access_type="tail", n=1)
    assert not busy.is_complete, "the answers came only after the cell"
    kernel.interrupt()
    kernel.finish(busy)


@ours
def test_introspection_is_answered_in_time_while_the_gil_is_held(start_kernel: StartKernel) -> None:
    kernel = start_kernel(settings=["introspection_deadline_s=0.5"])
    busy = kernel.execute("import re\nprint('on')\nre.match(r'(a+)+$', 'a' * 28 + 'b')")
    kernel.wait_for_text(busy, "on")
    content = _complete(kernel, "len")
    assert content["matches"] == []
    assert not busy.is_complete, "the answer came only after the cell"
    kernel.manager.shutdown_kernel(now=True)
