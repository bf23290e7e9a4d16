"""Stream text on its way out, and the limit of a cell's output."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unstuck.protocol import StreamName
from unstuck_broker.outputs import OutputMeter, StreamJoiner

OUT, ERR = StreamName.stdout, StreamName.stderr


def test_neighbours_of_one_parent_and_name_become_one_message() -> None:
    joiner = StreamJoiner(0.02, 100)
    assert joiner.add(b"p", OUT, "a", 1.0) == []
    assert joiner.add(b"p", OUT, "b", 1.01) == []
    assert joiner.flush(b"p") == [(b"p", OUT, "ab")]
    assert joiner.flush(b"p") == []


def test_the_other_stream_sends_what_came_before_it() -> None:
    joiner = StreamJoiner(0.02, 100)
    joiner.add(b"p", OUT, "a", 1.0)
    assert joiner.add(b"p", ERR, "b", 1.0) == [(b"p", OUT, "a")]
    assert joiner.flush_all() == [(b"p", ERR, "b")]


def test_text_waits_no_longer_than_it_may_however_often_more_comes() -> None:
    joiner = StreamJoiner(0.02, 100)
    joiner.add(b"p", OUT, "a", 1.0)
    joiner.add(b"q", OUT, "x", 1.01)
    joiner.add(b"p", OUT, "b", 1.015)
    assert joiner.deadline_s() == 1.02
    assert joiner.flush_due(1.019) == []
    assert joiner.flush_due(1.02) == [(b"p", OUT, "ab")]
    assert joiner.deadline_s() == 1.03


def test_a_message_is_sent_at_its_size() -> None:
    joiner = StreamJoiner(0.02, 3)
    assert joiner.add(b"p", OUT, "ab", 1.0) == []
    assert joiner.add(b"p", OUT, "cd", 1.0) == [(b"p", OUT, "abcd")]
    assert joiner.deadline_s() is None


PARENTS = st.sampled_from([b"p", b"q"])
WRITES = st.lists(st.tuples(PARENTS, st.sampled_from([OUT, ERR]), st.text(max_size=5)))


@given(WRITES, st.integers(1, 8), st.lists(st.integers(0, 3)))
def test_no_character_is_lost_or_reordered(
    writes: list[tuple[bytes, StreamName, str]], size: int, pauses: list[int]
) -> None:
    joiner = StreamJoiner(2.0, size)
    sent: list[tuple[bytes, StreamName, str]] = []
    now = 0.0
    for at, (parent, name, text) in enumerate(writes):
        now += pauses[at] if at < len(pauses) else 0
        sent += joiner.flush_due(now)
        sent += joiner.add(parent, name, text, now)
        deadline_s = joiner.deadline_s()
        assert deadline_s is None or now < deadline_s <= now + 2.0
    sent += joiner.flush_all()
    assert joiner.deadline_s() is None
    for wanted in (b"p", b"q"):
        written = [
            (name, char) for parent, name, text in writes if parent == wanted for char in text
        ]
        arrived = [(name, char) for parent, name, text in sent if parent == wanted for char in text]
        assert arrived == written


def test_a_meter_without_a_limit_takes_everything() -> None:
    meter = OutputMeter(0)
    assert all(meter.take(1 << 40) for _ in range(3))
    assert meter.cut == 0


def test_a_meter_takes_nothing_more_once_something_was_cut() -> None:
    meter = OutputMeter(10)
    assert [meter.take(6), meter.take(4), meter.take(1), meter.take(0)] == [
        True,
        True,
        False,
        False,
    ]
    assert meter.cut == 1


def test_a_meter_counts_what_it_cuts() -> None:
    meter = OutputMeter(10)
    assert [meter.take(11), meter.take(2)] == [False, False]
    assert meter.cut == 13
