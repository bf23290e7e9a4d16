"""What the snapshot magics ask, and how they show the answers."""

from __future__ import annotations

import threading

import pytest

import unstuck
from unstuck.protocol import AskRewind, AskSnapshots, RewindAnswer, SnapshotList, SnapshotRow
from unstuck_worker import asking, snapshotmagics
from unstuck_worker.asking import Asking
from unstuck_worker.snapshotname import as_name


def row(number: int, **more: object) -> SnapshotRow:
    """Make a row of the table."""
    fields: dict[str, object] = {
        "name": "", "taken_at": 0.0, "cell": 2, "kind": "promotable", "reasons": [],
        "memory_bytes": -1, "is_current": False,
    }  # fmt: skip
    return SnapshotRow(number=number, **{**fields, **more})  # type: ignore[arg-type]


def test_the_table_shows_name_cell_way_and_memory() -> None:
    rows = [
        row(3, name="clean", memory_bytes=2_500_000),
        row(7, cell=0, kind="donor", reasons=["polars' thread pool"]),
        row(8, cell=12, is_current=True),
    ]
    lines = snapshotmagics.table(SnapshotList(1, rows)).splitlines()
    assert lines[0].split() == ["name", "when", "after", "comes", "back", "by", "memory"]
    assert lines[1].startswith("3  clean  ")
    assert lines[1].endswith("2.5 MB")
    assert "  [2]" in lines[1]
    assert "start" in lines[2]
    assert "transplant (polars' thread pool)" in lines[2]
    assert "[12] (now)" in lines[3]


def test_an_empty_table_says_so_and_why_the_last_one_was_skipped() -> None:
    assert snapshotmagics.table(SnapshotList(1, [])) == "There is no snapshot.\n"
    told = snapshotmagics.table(SnapshotList(1, [], "memory is short"))
    assert told.endswith("The last one that was due was not taken: memory is short.\n")


def test_an_answer_from_the_lane_thread_reaches_who_has_asked() -> None:
    def send(message: object) -> None:
        assert isinstance(message, AskSnapshots | AskRewind)
        answer = RewindAnswer(message.request, "", "here")
        threading.Thread(target=questions.answered, args=(answer,)).start()

    questions = Asking(send)
    assert questions.ask(AskSnapshots) == RewindAnswer(1, "", "here")
    assert questions.ask(lambda number: AskRewind(number, 4)) == RewindAnswer(2, "", "here")


def test_a_broker_that_does_not_answer_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "DEADLINE_S", 0.05)
    questions = Asking(lambda _message: None)
    with pytest.raises(TimeoutError, match="the broker gave no answer"):
        questions.ask(AskSnapshots)
    questions.answered(SnapshotList(1, []))  # It comes too late, and nobody minds.


def test_outside_of_a_kernel_there_is_nothing_to_keep() -> None:
    with pytest.raises(RuntimeError, match="no unstuck kernel runs"):
        unstuck.snapshot()


def test_a_name_is_one_line_of_text() -> None:
    assert as_name(" two  words\n") == "two words"
    assert as_name("日本") == "日本"
    for wrong in (None, 5, b"x"):
        with pytest.raises(TypeError, match="the name of a snapshot is a string, not"):
            as_name(wrong)
    with pytest.raises(ValueError, match="surrogates"):
        as_name("\ud800")
