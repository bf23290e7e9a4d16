"""The shell channel and the run modes: what waits behind a blocking job."""

from __future__ import annotations

from pump import Pump, make_request
from unstuck.protocol import (
    Run,
    SetConcurrencyMode,
)
from unstuck.typing import KernelConcurrencyMode, RunMode, SocketID
from unstuck_broker.actions import (
    SendToWorker,
)
from words import tell

BLOCKING = SetConcurrencyMode(KernelConcurrencyMode.blocking)


def test_a_blocking_cell_closes_shell_and_never_control(pump: Pump) -> None:
    assert tell(pump.execute("m1", "##blocking")) == ["m1 busy", "main lane: run m1"]
    assert pump.execute("m2") == []
    assert pump.send(make_request("kernel_info_request", "m3")) == []
    assert tell(pump.control("kernel_info_request", "m4")) == [
        "m4 busy",
        "m4 kernel_info_reply ok",
        "m4 idle",
        "still busy",
    ]
    assert tell(pump.finish("m1")) == [
        "m1 execute_reply ok",
        "m1 idle",
        "m2 busy",
        "main lane: run m2",
        "m3 busy",
        "m3 kernel_info_reply ok",
        "m3 idle",
        "still busy",
    ]


def test_blocking_cells_behind_each_other_run_one_by_one(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2", "##blocking")
    pump.execute("m3", "##task")
    assert tell(pump.finish("m1"))[2:] == ["m2 busy", "main lane: run m2"]
    assert tell(pump.finish("m2"))[2:] == ["m3 busy", "main lane: run m3"]


def test_a_blocking_cell_that_waits_for_the_worker_keeps_shell_closed() -> None:
    pump = Pump()
    assert pump.execute("m1", "##blocking") == []
    assert pump.execute("m2") == []
    assert tell(pump.ready()) == ["m1 busy", "main lane: run m1"]
    assert tell(pump.finish("m1"))[2:] == ["m2 busy", "main lane: run m2"]


def test_in_blocking_mode_every_request_waits_for_the_one_before_it(pump: Pump) -> None:
    pump.execute("m1")
    pump.say(BLOCKING)
    pump.finish("m1")
    assert tell(pump.execute("m2", "##task")) == ["m2 busy", "main lane: run m2"]
    assert pump.send(make_request("complete_request", "m3")) == []
    assert pump.execute("m4") == []
    assert tell(pump.finish("m2"))[2:] == ["m3 busy", "main lane: run m3"]
    assert tell(pump.finish("m3"))[2:] == ["m4 busy", "main lane: run m4"]


def test_in_blocking_mode_control_closes_nothing(pump: Pump) -> None:
    pump.say(BLOCKING)
    run = make_request("execute_request", "m1", channel=SocketID.control)
    assert tell(pump.send(run)) == ["m1 busy", "main lane: run m1"]
    assert tell(pump.execute("m2")) == ["m2 busy", "main lane: run m2"]


def test_a_request_behind_a_blocking_cell_runs_as_it_says_once_it_is_read(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2", "##thread")
    pump.say(BLOCKING)
    actions = pump.finish("m1")
    assert [
        a.message.mode
        for a in actions
        if isinstance(a, SendToWorker) and isinstance(a.message, Run)
    ] == [RunMode.blocking]


def test_an_error_of_a_blocking_cell_aborts_the_cells_behind_it(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2")
    pump.send(make_request("kernel_info_request", "m3"))
    assert tell(pump.fail("m1")) == [
        "m1 execute_reply error ValueError",
        "m1 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "m3 busy",
        "m3 kernel_info_reply ok",
        "m3 idle",
    ]


def test_an_interrupt_of_a_blocking_cell_aborts_only_what_came_before_it(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2")
    pump.control("interrupt_request", "i1")
    pump.execute("m3")
    assert tell(pump.fail("m1"))[2:] == [
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "m3 busy",
        "main lane: run m3",
    ]


def test_thousands_of_requests_behind_a_blocking_cell_need_no_deep_stack(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    for number in range(2, 3000):
        pump.send(make_request("kernel_info_request", f"m{number}"))
    assert len(pump.finish("m1")) == 2 + 3 * 2998
    assert pump.core.waiting_bytes == 0


def test_what_waits_is_counted_with_its_buffers(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2", "x" * 1000)
    held = pump.core.waiting_bytes
    assert 1000 < held < 3000
    pump.finish("m1")
    assert pump.core.waiting_bytes == 0
    pump.execute("m3", "x" * 1000)
    assert pump.core.waiting_bytes == held


def test_a_worker_that_sets_the_concurrency_mode_back_opens_the_run_modes(pump: Pump) -> None:
    pump.say(BLOCKING)
    pump.say(SetConcurrencyMode(KernelConcurrencyMode.default))
    pump.execute("m1")
    assert tell(pump.execute("m2", "##task")) == ["m2 busy", "main lane: run m2"]
