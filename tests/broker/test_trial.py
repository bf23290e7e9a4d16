"""The first worker's template is kept where the kernel rests before its first cell."""

from __future__ import annotations

import pytest

from pump import make_request
from unstuck.protocol import Ready
from unstuck.typing import SocketID
from unstuck_broker.events import Event, FromWorker, Received, Subscribed, Ticked, WorkerExited
from unstuck_broker.trial import REST_S, Trial, Verdict

READY_S = 50.0
READY = FromWorker(Ready(1, "banner", "9.0"))


def cell(**content: bool) -> Event:
    return Received(make_request(content={"code": "1", **content}))


def begun(event: Event | None = None) -> Trial:
    """Give the trial of a kernel whose worker is there, or of which ``event`` is the first."""
    trial = Trial()
    assert trial.judge(READY if event is None else event, READY_S) is Verdict.open
    return trial


def test_a_cell_that_is_there_before_the_worker_drops_the_template() -> None:
    assert begun(Subscribed(b"")).judge(cell(), READY_S) is Verdict.drop


def test_a_cell_that_comes_soon_drops_it() -> None:
    assert begun().judge(cell(), READY_S + 0.9 * REST_S) is Verdict.drop


def test_a_worker_that_has_rested_keeps_it() -> None:
    trial = begun()
    assert trial.judge(Ticked(), READY_S + 0.9 * REST_S) is Verdict.open
    assert trial.judge(Ticked(), READY_S + REST_S) is Verdict.keep
    assert trial.verdict is Verdict.keep


def test_a_cell_behind_the_rest_keeps_it_also_where_it_is_seen_first() -> None:
    assert begun().judge(cell(), READY_S + REST_S) is Verdict.keep


def test_time_before_the_worker_is_there_is_no_rest() -> None:
    trial = begun(Ticked())
    assert trial.judge(Ticked(), READY_S + 10 * REST_S) is Verdict.open


@pytest.mark.parametrize(
    "kind",
    ["kernel_info_request", "comm_info_request", "comm_open", "complete_request", "of_another"],
)
def test_what_runs_no_cell_decides_nothing(kind: str) -> None:
    assert begun().judge(Received(make_request(kind)), READY_S) is Verdict.open


@pytest.mark.parametrize("content", [{"silent": True}, {"store_history": False}])
def test_cells_that_leave_no_trace_are_a_frontends_own(content: dict[str, bool]) -> None:
    trial = begun()
    assert trial.judge(cell(**content), READY_S) is Verdict.open
    assert trial.judge(cell(), READY_S) is Verdict.drop


@pytest.mark.parametrize(
    "event",
    [
        Received(make_request("restart_request", channel=SocketID.control)),
        WorkerExited(None, 11),
    ],
)
def test_who_restarts_at_once_keeps_it(event: Event) -> None:
    assert Trial().judge(event, READY_S) is Verdict.keep
