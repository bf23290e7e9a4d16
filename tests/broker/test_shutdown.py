"""Restarts and shutdowns, asked for by clients, signals and cells."""

from __future__ import annotations

from pump import Pump, make_request
from unstuck.config import Config
from unstuck.protocol import AskExit, AskRestart, SetConcurrencyMode
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker.events import LimitExceeded, Terminated
from unstuck_broker.lifecycle import S
from unstuck_broker.reason import RESTART, Why, over_limit
from words import shown, tell

RESTARTED = ["everybody: restarting", "everybody: starting"]
MEMORY = over_limit(Why.MEMORY, 2_000_000_000, 1_000_000_000)


# --- restart --------------------------------------------------------------------------------------


def test_a_restart_answers_everything_and_stops_the_worker(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.send(make_request("complete_request", "m3"))
    assert tell(pump.control("restart_request", "r1")) == [
        "m1 error KernelRestarted",
        "m1 execute_reply error KernelRestarted",
        "m1 idle",
        "m3 complete_reply ok",
        "m3 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "r1 busy",
        "r1 restart_reply ok",
        "r1 idle",
        "stop within 5 s",
    ]
    assert pump.execute("m4") == []
    assert shown(tell(pump.die(None, 0))) == ["spawn"]
    assert tell(pump.renew()) == ["m4 busy", "main lane: run m4"]
    assert tell(pump.finish("m4"))[2:] == [*RESTARTED, "everybody: idle"]


def test_a_restart_of_an_idle_worker_is_announced_at_once(pump: Pump) -> None:
    pump.control("restart_request", "r1")
    assert shown(tell(pump.die(None, 0))) == ["spawn", *RESTARTED]
    assert tell(pump.renew()) == ["everybody: idle"]


def test_a_restart_opens_the_shell_channel(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2")
    pump.send(make_request("kernel_info_request", "m3"))
    assert tell(pump.control("restart_request", "r1"))[3:] == [
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "r1 busy",
        "r1 restart_reply ok",
        "r1 idle",
        "stop within 5 s",
        "m3 busy",
        "m3 kernel_info_reply ok",
        "m3 idle",
    ]


def test_a_worker_that_is_restarted_while_it_starts_is_killed() -> None:
    pump = Pump()
    pump.execute("m1")
    assert tell(pump.control("restart_request", "r1"))[-1] == "kill: restart"
    assert pump.ready() == [], "it was ready a moment too late"
    assert pump.core.life.state is S.KILLED
    pump.execute("m2")
    assert shown(tell(pump.die(9, reason=RESTART))) == ["spawn"]
    assert tell(pump.renew()) == ["m2 busy", "main lane: run m2"]


def test_a_restart_while_there_is_no_worker_waits_for_the_one_that_comes(pump: Pump) -> None:
    pump.die()
    assert tell(pump.control("restart_request", "r1")) == [
        "r1 busy",
        "r1 restart_reply ok",
        "r1 idle",
        "kill: restart",
        *RESTARTED,
    ]
    assert pump.core.life.state is S.RECOVERING
    assert tell(pump.renew()) == ["everybody: idle"]


def test_two_restarts_in_a_row_are_both_answered(pump: Pump) -> None:
    pump.control("restart_request", "r1")
    assert tell(pump.control("restart_request", "r2")) == [
        "r2 busy",
        "r2 restart_reply ok",
        "r2 idle",
        "stop within 5 s",
    ]
    assert shown(tell(pump.die(None, 0))) == ["spawn", *RESTARTED]


def test_a_cell_that_asks_for_a_restart_gets_its_reply_first(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2", "##task")
    assert pump.say(AskRestart(pump.job_of("m1"))) == []
    assert tell(pump.finish("m2")) == ["m2 execute_reply ok", "m2 idle", "still busy"]
    assert tell(pump.finish("m1")) == ["m1 execute_reply ok", "m1 idle", "stop within 5 s"]


def test_a_restart_that_a_timer_asks_for_is_done_at_once(pump: Pump) -> None:
    assert tell(pump.say(AskRestart(0))) == ["stop within 5 s"]
    assert pump.say(AskRestart(0)) == []


# --- shutdown -------------------------------------------------------------------------------------


def test_a_shutdown_is_answered_first_and_ends_everything(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.print("m1", "x")
    assert tell(pump.control("shutdown_request", "s1", restart=True)) == [
        "s1 busy",
        "s1 shutdown_reply ok",
        "s1 idle",
        "s1 shutdown_reply",
        "m1 stdout 'x'",
        "m1 error KernelStopped",
        "m1 execute_reply error KernelStopped",
        "m1 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "exit to restart",
    ]
    assert pump.die(None, 0) == []
    assert pump.core.life.state is S.DEAD


def test_requests_after_a_shutdown_are_aborted(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2")
    pump.control("shutdown_request", "s1")
    assert tell(pump.execute("m3")) == ["m3 busy", "m3 execute_reply aborted", "m3 idle"]
    assert tell(pump.control("shutdown_request", "s2")) == [
        "s2 busy",
        "s2 shutdown_reply aborted",
        "s2 idle",
    ]
    assert pump.feed(Terminated()) == []
    assert pump.feed(LimitExceeded(MEMORY)) == []


def test_a_signal_to_the_broker_shuts_down_without_a_request(pump: Pump) -> None:
    pump.execute("m1")
    assert tell(pump.feed(Terminated())) == [
        "m1 error KernelStopped",
        "m1 execute_reply error KernelStopped",
        "m1 idle",
        "exit",
    ]


def test_a_shutdown_before_anybody_listens_lets_the_answers_out() -> None:
    pump = Pump(listening=False)
    lines = tell(pump.control("shutdown_request", "s1"))
    assert lines == ["s1 busy", "s1 shutdown_reply ok", "s1 idle", "s1 shutdown_reply", "exit"]


def test_a_worker_that_gets_ready_after_the_shutdown_is_not_heard() -> None:
    pump = Pump()
    pump.control("shutdown_request", "s1")
    assert pump.ready() == []
    assert pump.core.life.state is S.STOPPING


def test_deaths_after_the_end_change_nothing(pump: Pump) -> None:
    pump.control("shutdown_request", "s1")
    pump.die(None, 0)
    assert pump.die(None, 0) == []
    assert pump.core.life.state is S.DEAD


def test_a_shutdown_during_a_restart_tells_nobody_of_a_restart(pump: Pump) -> None:
    pump.die()
    pump.execute("m1")
    pump.control("restart_request", "r1")
    lines = tell(pump.control("shutdown_request", "s1"))
    assert lines[-1] == "exit"
    assert "everybody: restarting" not in lines


def test_a_shutdown_in_blocking_mode_may_come_on_shell_and_waits_there(pump: Pump) -> None:
    pump.say(SetConcurrencyMode(KernelConcurrencyMode.blocking))
    pump.execute("m1")
    assert pump.send(make_request("shutdown_request", "s1")) == []
    pump.execute("m2")
    assert tell(pump.finish("m1")) == [
        "m1 execute_reply ok",
        "m1 idle",
        "s1 busy",
        "s1 shutdown_reply ok",
        "s1 idle",
        "s1 shutdown_reply",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "exit",
    ]


# --- exit() in a cell -----------------------------------------------------------------------------


def test_a_cell_that_exits_gets_its_reply_first(pump: Pump) -> None:
    pump.execute("m1")
    pump.send(make_request("complete_request", "m2"))
    assert pump.say(AskExit(job=pump.job_of("m1"))) == []
    assert tell(pump.finish("m2")) == ["m2 complete_reply ok", "m2 idle", "still busy"]
    assert tell(pump.finish("m1")) == ["m1 execute_reply ok", "m1 idle", "exit"]


def test_an_exit_that_keeps_the_kernel_keeps_it(pump: Pump) -> None:
    pump.execute("m1")
    pump.say(AskExit(keep_kernel=True, job=pump.job_of("m1")))
    assert tell(pump.finish("m1")) == ["m1 execute_reply ok", "m1 idle"]


def test_a_worker_that_dies_while_its_cell_exits_ends_the_kernel(pump: Pump) -> None:
    pump.execute("m1")
    pump.say(AskExit(job=pump.job_of("m1")))
    lines = shown(tell(pump.die()))
    assert lines == ["m1 error WorkerDied", "m1 execute_reply error WorkerDied", "m1 idle", "exit"]


def test_a_wish_of_a_dead_worker_does_not_come_true_in_the_next(pump: Pump) -> None:
    pump.execute("m1")
    pump.say(AskRestart(pump.job_of("m1")))
    pump.die()
    pump.renew()
    pump.execute("m2")
    assert tell(pump.finish("m2")) == ["m2 execute_reply ok", "m2 idle"]


def test_a_wish_is_forgotten_at_a_restart(pump: Pump) -> None:
    pump.execute("m1")
    pump.say(AskExit(job=pump.job_of("m1")))
    pump.control("restart_request", "r1")
    pump.die(None, 0)
    pump.renew()
    pump.execute("m2")
    assert tell(pump.finish("m2")) == ["m2 execute_reply ok", "m2 idle"]


def test_the_grace_of_a_restart_is_the_one_that_is_set() -> None:
    pump = Pump(Config(shutdown_grace_s=1.5))
    pump.ready()
    assert tell(pump.control("restart_request", "r1"))[-1] == "stop within 1.5 s"
