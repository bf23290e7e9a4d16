"""History requests: tail, range and search, against a real database and from many threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from plainshell import plain_shell, run
from unstuck_worker import history as module
from unstuck_worker import turns
from unstuck_worker.history import history

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[InteractiveShell]:
    """Give a shell that runs three cells in its second session; the first had one."""
    with plain_shell(tmp_path) as earlier:
        run(earlier, "first_session = 1")
    with plain_shell(tmp_path, db_log_output=True) as shell:
        for code in ("a = 1", "a + 41", "%who_ls int"):
            run(shell, code)
        yield shell


def lines(shell: InteractiveShell, access: str, **how: object) -> list[tuple[int, int, Any]]:
    reply = history(shell, {"hist_access_type": access, **how})
    assert reply["status"] == "ok", reply
    found: list[tuple[int, int, Any]] = reply["history"]
    return found


def sources(found: list[tuple[int, int, Any]]) -> list[Any]:
    return [line[2] for line in found]


def test_the_tail_gives_the_last_lines_oldest_first_over_sessions(shell: InteractiveShell) -> None:
    found = lines(shell, "tail", n=10)
    assert sources(found) == ["first_session = 1", "a = 1", "a + 41", "%who_ls int"]
    assert len({line[0] for line in found}) == 2
    assert sources(lines(shell, "tail", n=2)) == ["a + 41", "%who_ls int"]
    assert lines(shell, "tail", n=0) == []


def test_the_tail_without_a_number_gives_ten_lines(shell: InteractiveShell) -> None:
    for number in range(12):
        run(shell, f"b = {number}")
    assert len(lines(shell, "tail")) == 10


def test_a_range_counts_sessions_from_the_present(shell: InteractiveShell) -> None:
    assert sources(lines(shell, "range", session=0, start=1)) == ["a = 1", "a + 41", "%who_ls int"]
    assert sources(lines(shell, "range", session=0, start=2, stop=3)) == ["a + 41"]
    assert sources(lines(shell, "range", session=-1, start=1)) == ["first_session = 1"]
    assert lines(shell, "range", session=9999) == []


def test_a_search_takes_wildcards_a_number_and_unique(shell: InteractiveShell) -> None:
    run(shell, "a = 1")
    assert sources(lines(shell, "search", pattern="a = *")) == ["a = 1", "a = 1"]
    assert sources(lines(shell, "search", pattern="a = *", unique=True)) == ["a = 1"]
    assert sources(lines(shell, "search", pattern="*a*", n=1)) == ["a = 1"]
    assert lines(shell, "search", pattern="no such line") == []
    assert len(lines(shell, "search")) == 5


def test_outputs_come_with_the_lines_when_asked_for(shell: InteractiveShell) -> None:
    assert lines(shell, "range", session=0, start=2, stop=3, output=True)[0][2] == ("a + 41", "42")
    assert ("a + 41", "42") in sources(lines(shell, "tail", n=3, output=True))


def test_lines_come_as_typed_or_as_run(shell: InteractiveShell) -> None:
    assert sources(lines(shell, "tail", n=1, raw=True)) == ["%who_ls int"]
    assert "run_line_magic" in sources(lines(shell, "tail", n=1, raw=False))[0]


def test_without_history_every_answer_is_empty(tmp_path: Path) -> None:
    with plain_shell(tmp_path, enabled=False) as shell:
        run(shell, "a = 1")
        for access in ("tail", "range", "search"):
            assert lines(shell, access) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "hist_access_type"),
        ({"hist_access_type": "head"}, "head"),
        ({"hist_access_type": "tail", "n": "3"}, "$.n"),
        ({"hist_access_type": "tail", "n": -1}, "$.n"),
        ({"hist_access_type": "range", "session": "x"}, "$.session"),
        ({"hist_access_type": "search", "pattern": 3}, "$.pattern"),
    ],
)
def test_a_bad_request_gets_an_error_that_says_what_was_wrong(
    shell: InteractiveShell, content: dict[str, Any], said: str
) -> None:
    reply = history(shell, content)
    assert reply["status"] == "error"
    assert said in reply["evalue"]


def test_threads_read_while_the_main_thread_runs_cells(shell: InteractiveShell) -> None:
    replies: list[dict[str, Any]] = []

    def read() -> None:
        kinds = ("tail", "range", "search") * 5
        replies.extend(history(shell, {"hist_access_type": kind}) for kind in kinds)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(30):
        run(shell, f"c = {number}")
    for thread in threads:
        thread.join(30)
    assert [reply["status"] for reply in replies] == ["ok"] * 60
    assert sources(lines(shell, "tail", n=1)) == ["c = 29"]
    assert len(lines(shell, "range", session=0, start=1)) == 33


def test_a_request_does_not_wait_for_ever_for_another(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "DEADLINE_S", 0.1)
    with module.turns.take():
        reply = history(shell, {"hist_access_type": "tail"})
    assert reply["ename"] == "TimeoutError"
