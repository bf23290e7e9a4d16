"""States of rapid requests on control, with a loop whose time is a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from broker.clock import Clock
from unstuck_broker import replies
from unstuck_broker.actions import PublishToClients
from unstuck_broker.states import AT_ONCE, HOLD_S, RAPID_S, States

if TYPE_CHECKING:
    import asyncio

NOBODY = replies.nobodys_header("s")


def make_states() -> tuple[Clock, States, list[str]]:
    """Make a clock, states, and the list of what they publish."""
    clock = Clock()
    shown: list[str] = []

    def publish(state: PublishToClients, date: str) -> None:
        parent = "nobody" if state.parent_header == NOBODY else state.parent_header.decode()
        word = "busy" if state.content == replies.BUSY else "idle"
        shown.append(f"{parent} {word} {date}")

    return clock, States(cast("asyncio.AbstractEventLoop", clock), publish, NOBODY), shown


def request(states: States, name: bytes, date: str) -> None:
    """Hold what one request on control says beside a running cell."""
    states.hold(PublishToClients("status", replies.BUSY, name), date)
    states.hold(PublishToClients("status", replies.IDLE, name), date)
    states.hold(PublishToClients("status", replies.BUSY, NOBODY), date)


def test_they_follow_in_order_and_with_their_own_dates() -> None:
    clock, states, shown = make_states()
    request(states, b"c1", "1")
    request(states, b"c2", "2")
    assert shown == []
    assert clock.timer is not None
    assert clock.timer[0] == HOLD_S
    clock.wake()
    assert shown == ["c1 busy 1", "c1 idle 1", "c2 busy 2", "c2 idle 2", "nobody busy 2"]
    assert clock.timer is None


def test_many_are_published_a_few_at_a_time() -> None:
    clock, states, shown = make_states()
    for number in range(AT_ONCE):
        request(states, b"c%d" % number, "1")
    clock.wake()
    assert len(shown) == AT_ONCE
    clock.wake()
    states.let_go()
    assert [line for line in shown if "nobody" not in line] == [
        f"c{number} {state} 1" for number in range(AT_ONCE) for state in ("busy", "idle")
    ]
    assert clock.timer is None


def test_they_go_before_what_is_published_next() -> None:
    clock, states, shown = make_states()
    request(states, b"c1", "1")
    states.let_go()
    assert shown == ["c1 busy 1", "c1 idle 1", "nobody busy 1"]
    assert clock.timer is None
    states.let_go()
    assert len(shown) == 3


def test_only_a_request_right_behind_another_is_rapid() -> None:
    clock, states, _ = make_states()
    assert not states.is_rapid()
    clock.now_s = RAPID_S / 2
    assert states.is_rapid()
    clock.now_s += 2 * RAPID_S
    assert not states.is_rapid()
