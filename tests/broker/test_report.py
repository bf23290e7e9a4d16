"""What a state_request is told, and restarts that a shutdown request asks for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from pump import READY, Pump, make_request
from unstuck.config import Config
from unstuck.typing import SocketID
from unstuck_broker.events import WorkerProgress
from words import tell

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers: Iterator[int] = itertools.count()


def state(pump: Pump) -> dict[str, Any]:
    """Ask for the state; the answer comes in the same turn."""
    msg_id = f"state{next(_numbers)}"
    pump.control("state_request", msg_id)
    [content] = pump.ledger.replies[msg_id]
    return dict(content)


@pytest.fixture
def in_place() -> Pump:
    """Give a kernel that is launched by our provisioner, its worker ready."""
    made = Pump(Config(restart_in_place=True))
    made.ready()
    return made


def test_an_idle_kernel_says_so(pump: Pump) -> None:
    assert state(pump) == {
        "status": "ok",
        "state": "ready",
        "hung_s": None,
        "worker_pid": READY.pid,
        "restarts": 0,
        "relaunches": 0,
        "snapshots": [],
        "snapshot_skipped": "",
        "waiting": 0,
        "running": [],
    }


def test_snapshots_are_told_with_their_processes(pump: Pump) -> None:
    pump.snapshot(1, name="clean", taken_at=5.0)
    pump.execute("m1")
    pump.finish("m1")
    assert state(pump)["snapshots"] == [
        {
            "number": 1,
            "name": "clean",
            "pid": 9001,
            "spare_pid": None,
            "cell": 1,
            "taken_at": 5.0,
            "kind": "promotable",
            "is_current": False,
            "memory_bytes": -1,
        }
    ]


def test_what_runs_is_told_with_its_time_and_what_waits_is_counted(pump: Pump) -> None:
    pump.execute("m1", "\n  first()  \nsecond()")
    pump.execute("m2")
    pump.send(make_request("complete_request", "m3", content={"code": "a", "cursor_pos": 1}))
    pump.pass_time(2.5)
    told = state(pump)
    assert (told["state"], told["waiting"]) == ("busy", 1)
    assert told["running"] == [
        {
            "msg_id": "m1",
            "msg_type": "execute_request",
            "run_mode": "queue",
            "subshell_id": None,
            "execution_count": 1,
            "seconds": 2.5,
            "code": "first()",
        },
        {
            "msg_id": "m3",
            "msg_type": "complete_request",
            "run_mode": "thread",
            "subshell_id": None,
            "execution_count": None,
            "seconds": 2.5,
            "code": None,
        },
    ]


def test_the_time_of_a_cell_begins_when_it_starts(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.pass_time(5.0)
    pump.finish("m1")
    pump.pass_time(1.0)
    assert [one["seconds"] for one in state(pump)["running"]] == [1.0]


def test_what_waits_behind_a_blocking_cell_is_counted(pump: Pump) -> None:
    pump.execute("m1", "##blocking\n1")
    pump.execute("m2")
    assert state(pump)["waiting"] == 1


def test_a_long_line_is_cut(pump: Pump) -> None:
    pump.execute("m1", "x" * 1000)
    assert state(pump)["running"][0]["code"] == "x" * 200


def test_a_hang_is_told_until_the_worker_answers_or_nothing_runs(pump: Pump) -> None:
    pump.execute("m1")
    pump.feed(WorkerProgress(gil_free=False, main_steps=0))
    pump.pass_time(2.0)
    assert state(pump)["hung_s"] == 3.0
    pump.feed(WorkerProgress(gil_free=True, main_steps=0))
    assert state(pump)["hung_s"] is None
    pump.feed(WorkerProgress(gil_free=False, main_steps=0))
    pump.finish("m1")
    assert state(pump)["hung_s"] is None


def test_a_worker_that_is_not_there_has_no_pid() -> None:
    pump = Pump()
    assert (state(pump)["state"], state(pump)["worker_pid"]) == ("starting", None)
    pump.ready()
    pump.die()
    assert (state(pump)["state"], state(pump)["worker_pid"]) == ("recovering", None)


def test_restarts_are_counted_deaths_are_not(pump: Pump) -> None:
    pump.control("restart_request", "r1")
    pump.die()
    pump.renew()
    pump.die()
    assert (state(pump)["restarts"], state(pump)["relaunches"]) == (1, 0)


def test_the_state_is_for_control_alone(pump: Pump) -> None:
    actions = tell(pump.send(make_request("state_request", "m1", channel=SocketID.shell)))
    assert "m1 state_reply error ValueError" in actions


# --- restarts that a shutdown request asks for ----------------------------------------------------


def test_a_shutdown_to_restart_stops_only_the_worker(in_place: Pump) -> None:
    in_place.execute("m1")
    in_place.execute("m2")
    assert tell(in_place.control("shutdown_request", "s1", restart=True)) == [
        "s1 busy",
        "s1 shutdown_reply ok",
        "s1 idle",
        "s1 shutdown_reply",
        "m1 error KernelRestarted",
        "m1 execute_reply error KernelRestarted",
        "m1 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "stop within 5 s",
    ]
    assert in_place.exit is None
    told = state(in_place)
    assert (told["restarts"], told["relaunches"]) == (1, 1)


@pytest.mark.parametrize(
    ("date", "relaunches"),
    [
        ("2026-11-30T02:59:58.900000Z", 0),
        ("2026-11-30T03:00:00.499999+00:00", 0),
        ("2026-11-30T03:00:00.500000Z", 1),
        ("2026-12-01T00:00:00Z", 1),
        ("2026-11-30T02:00:00+02:00", 1),
        ("", 1),
    ],
)
def test_a_request_to_restart_that_was_meant_for_the_broker_before_is_only_answered(
    in_place: Pump, date: str, relaunches: int
) -> None:
    in_place.execute("m1")
    content = {"restart": True}
    channel = SocketID.control
    in_place.send(
        make_request("shutdown_request", "s1", channel=channel, content=content, date=date)
    )
    assert in_place.ledger.replies["s1"] == [{"status": "ok", "restart": True}]
    assert state(in_place)["relaunches"] == relaunches
    assert bool(state(in_place)["running"]) == (not relaunches)


def test_its_status_names_the_shutdown_request_as_parent(in_place: Pump) -> None:
    in_place.control("shutdown_request", "s1", restart=True)
    lines = tell(in_place.die(0))
    assert "s1 restarting" in lines
    assert "everybody: restarting" not in lines
    assert "everybody: starting" in lines


def test_the_next_death_is_nobodys_wish(in_place: Pump) -> None:
    in_place.control("shutdown_request", "s1", restart=True)
    in_place.die(0)
    in_place.renew()
    in_place.execute("m1")
    assert "everybody: restarting" in tell(in_place.die())


def test_a_shutdown_for_good_ends_the_kernel(in_place: Pump) -> None:
    in_place.control("shutdown_request", "s1", restart=False)
    assert in_place.exit is not None


def test_without_our_provisioner_a_shutdown_to_restart_ends_the_kernel(pump: Pump) -> None:
    pump.control("shutdown_request", "s1", restart=True)
    assert pump.exit is not None
    assert pump.exit.restart
