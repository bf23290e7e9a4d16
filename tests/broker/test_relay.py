"""Outputs of jobs: under their cell, in order, within their limit."""

from __future__ import annotations

from pump import Pump
from unstuck.config import Config
from unstuck.protocol import (
    SetConcurrencyMode,
    Stream,
    StreamName,
)
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker import replies
from unstuck_broker.events import PipeText
from words import tell

BLOCKING = SetConcurrencyMode(KernelConcurrencyMode.blocking)


def test_prints_of_a_cell_are_joined_and_leave_before_its_reply(pump: Pump) -> None:
    pump.execute("m1")
    assert pump.print("m1", "a") == []
    assert pump.print("m1", "b") == []
    assert tell(pump.finish("m1")) == ["m1 stdout 'ab'", "m1 execute_reply ok", "m1 idle"]


def test_prints_leave_when_they_have_waited_long_enough(pump: Pump) -> None:
    pump.execute("m1")
    pump.print("m1", "a")
    assert tell(pump.pass_time(0.05)) == ["m1 stdout 'a'"]
    assert pump.core.deadline_s() is None


def test_a_display_leaves_behind_the_prints_before_it(pump: Pump) -> None:
    pump.execute("m1")
    pump.print("m1", "a")
    assert tell(pump.publish("m1", "display_data", b"{}")) == ["m1 stdout 'a'", "m1 display_data"]


def test_an_output_keeps_the_parent_that_the_worker_gives_it(pump: Pump) -> None:
    late = Stream(7, StreamName.stdout, "late", b'{"msg_id": "m0"}')
    pump.say(late)
    pump.say(Stream(7, StreamName.stdout, "unparented"))
    assert tell(pump.pass_time(1.0)) == ["m0 stdout 'late'", "everybody: stdout 'unparented'"]


def test_text_of_c_code_belongs_to_the_newest_cell_of_the_queue(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##task")
    pump.feed(PipeText(StreamName.stderr, "from C"))
    pump.feed(PipeText(StreamName.stderr, "from a child", b'{"msg_id": "m0"}'))
    assert tell(pump.pass_time(1.0)) == ["m1 stderr 'from C'", "m0 stderr 'from a child'"]


def test_a_lone_surrogate_in_a_print_is_replaced(pump: Pump) -> None:
    pump.execute("m1")
    pump.print("m1", "\ud800")
    assert tell(pump.pass_time(1.0)) == ["m1 stdout '?'"]


def test_output_beyond_the_limit_is_cut_and_the_cell_says_how_much() -> None:
    pump = Pump(Config(output_bytes_per_cell=5))
    pump.ready()
    pump.execute("m1")
    pump.print("m1", "four")
    pump.print("m1", "more")
    assert pump.publish("m1", "display_data", b'{"data": {}}') == []
    assert tell(pump.fail("m1")) == [
        "m1 stdout 'four'",
        "m1 stderr \"\\n[unstuck] 16 bytes of this cell's output were cut: "
        'the limit output_bytes_per_cell is 5.\\n"',
        "m1 execute_reply error ValueError",
        "m1 idle",
    ]


def test_the_limit_of_output_cuts_no_error_and_no_comm() -> None:
    pump = Pump(Config(output_bytes_per_cell=5))
    pump.ready()
    pump.execute("m1")
    error = replies.error_output("ValueError", "a long explanation")
    comm = b'{"comm_id": "c1", "target_name": "t"}'
    assert tell(pump.publish("m1", "error", error)) == ["m1 error ValueError"]
    assert tell(pump.publish("m1", "comm_open", comm)) == ["m1 comm_open"]


def test_a_worker_that_dies_behind_the_limit_says_how_much_was_cut() -> None:
    pump = Pump(Config(output_bytes_per_cell=5))
    pump.ready()
    pump.execute("m1")
    pump.print("m1", "too much")
    assert "8 bytes of this cell's output were cut" in tell(pump.die())[1]
