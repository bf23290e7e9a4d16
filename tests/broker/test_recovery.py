"""Deaths, restarts and shutdowns: what is answered, in which order, and what comes next."""

from __future__ import annotations

import pytest

from pump import Pump, make_request
from unstuck.config import Config
from unstuck.protocol import AskExit, AskRestart, Failed, SetConcurrencyMode
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker.events import LimitExceeded, Terminated, WorkerExited
from unstuck_broker.lifecycle import S
from unstuck_broker.reason import RESTART, STOP, Reason, Why, over_limit
from unstuck_broker.recovery import describe
from words import evalues, tell

RESTARTED = ["everybody: restarting", "everybody: starting"]
MEMORY = over_limit(Why.MEMORY, 2_000_000_000, 1_000_000_000)
COMM = b'{"comm_id": "c1", "target_name": "t"}'


def shown(lines: list[str]) -> list[str]:
    """Leave out the log."""
    return [line for line in lines if not line.startswith("log ")]


# --- death ----------------------------------------------------------------------------------------


def test_a_death_costs_the_running_cell_and_aborts_its_queue(pump: Pump) -> None:
    pump.execute("m1")
    pump.execute("m2")
    pump.publish("m1", "comm_open", COMM)
    pump.print("m1", "last words")
    actions = pump.die(11)
    assert tell(actions) == [
        "log worker died state=busy cause='the worker died by SIGSEGV' next_in_s=0",
        "m1 stdout 'last words'",
        "m1 error WorkerDied",
        "m1 execute_reply error WorkerDied",
        "m1 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "everybody: comm_close",
        "spawn",
        *RESTARTED,
    ]
    assert evalues(actions) == ["the worker died by SIGSEGV; all variables were lost"]
    assert tell(pump.renew()) == ["everybody: idle"]
    assert tell(pump.execute("m3")) == ["m3 busy", "main lane: run m3"]


def test_the_reply_shows_the_stack_and_the_last_words(pump: Pump) -> None:
    pump.execute("m1")
    pump.die(6, stack="File x, line 3", last_words="free(): invalid pointer")
    assert pump.ledger.replies["m1"][0]["traceback"] == [
        "WorkerDied: the worker died by SIGABRT; all variables were lost",
        "File x, line 3",
        "The last lines that it wrote:\nfree(): invalid pointer",
    ]


def test_a_queue_that_does_not_stop_on_error_goes_on_in_the_next_worker(pump: Pump) -> None:
    pump.execute("m1", content={"stop_on_error": False})
    pump.execute("m2")
    lines = shown(tell(pump.die()))
    assert lines == ["m1 error WorkerDied", "m1 execute_reply error WorkerDied", "m1 idle", "spawn"]
    assert tell(pump.renew()) == ["m2 busy", "main lane: run m2"]
    assert tell(pump.finish("m2")) == [
        "m2 execute_reply ok",
        "m2 idle",
        *RESTARTED,
        "everybody: idle",
    ]


def test_every_kind_of_running_job_is_answered_at_a_death(pump: Pump) -> None:
    pump.execute("m1", "##task")
    pump.send(make_request("comm_msg", "m2"))
    pump.send(make_request("complete_request", "m3"))
    pump.send(make_request("history_request", "m4"))
    assert shown(tell(pump.die())) == [
        "m1 error WorkerDied",
        "m1 execute_reply error WorkerDied",
        "m1 idle",
        "m2 idle",
        "m3 complete_reply ok",
        "m3 idle",
        "m4 history_reply error TimeoutError",
        "m4 idle",
        "spawn",
        *RESTARTED,
    ]


def test_what_waits_behind_a_blocking_cell_follows_its_death(pump: Pump) -> None:
    pump.execute("m1", "##blocking")
    pump.execute("m2")
    pump.send(make_request("kernel_info_request", "m3"))
    pump.send(make_request("comm_msg", "m4"))
    assert shown(tell(pump.die()))[2:] == [
        "m1 idle",
        "m2 busy",
        "m2 execute_reply aborted",
        "m2 idle",
        "spawn",
        "m3 busy",
        "m3 kernel_info_reply ok",
        "m3 idle",
    ]
    assert tell(pump.renew()) == ["m4 busy", "main lane: run m4"]
    assert tell(pump.finish("m4")) == ["m4 idle", *RESTARTED, "everybody: idle"]


def test_a_failed_task_at_a_death_aborts_no_queue(pump: Pump) -> None:
    pump.execute("m1", content={"stop_on_error": False})
    pump.execute("m2", "##task")
    pump.execute("m3")
    pump.die()
    assert tell(pump.renew()) == ["m3 busy", "main lane: run m3"]


def test_open_questions_and_the_concurrency_mode_die_with_the_worker(pump: Pump) -> None:
    pump.say(SetConcurrencyMode(KernelConcurrencyMode.blocking))
    pump.execute("m1")
    pump.ask_input("m1", 1)
    pump.die()
    assert len(pump.core.questions) == 0
    assert pump.core.concurrency_mode is KernelConcurrencyMode.default


def test_messages_of_the_dead_worker_s_jobs_are_not_answered_again(pump: Pump) -> None:
    pump.execute("m1")
    job = pump.job_of("m1")
    pump.die()
    pump.renew()
    pump.execute("m2")
    assert pump.job_of("m2") != job


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (WorkerExited(None, 9), "the worker died by SIGKILL"),
        (WorkerExited(None, 199), "the worker died by signal 199"),
        (WorkerExited(3, None), "the worker ended with exit code 3"),
        (WorkerExited(None, 9, reason=STOP), "the worker died by SIGKILL"),
        (WorkerExited(None, 9, reason=MEMORY), f"{MEMORY.words}: the worker died by SIGKILL"),
        (WorkerExited(None, None, reason=Reason(Why.START, "no process")), "no process"),
    ],
)
def test_a_death_is_described_in_words(event: WorkerExited, words: str) -> None:
    assert describe(event) == words


def test_a_limit_kills_the_worker_and_its_cell_says_why(pump: Pump) -> None:
    pump.execute("m1")
    assert tell(pump.feed(LimitExceeded(MEMORY))) == [f"kill: {MEMORY.words}"]
    actions = pump.die(9, reason=MEMORY)
    assert "m1 execute_reply error MemoryError" in tell(actions)
    assert evalues(actions) == [
        "the process tree used 2,000 MB; the limit memory_bytes is 1,000 MB: "
        "the worker died by SIGKILL; all variables were lost"
    ]


def test_too_many_processes_are_an_error_of_their_own(pump: Pump) -> None:
    pump.execute("m1")
    reason = over_limit(Why.PROCESSES, 12, 10)
    pump.feed(LimitExceeded(reason))
    actions = pump.die(9, reason=reason)
    assert "m1 execute_reply error ProcessLimitExceeded" in tell(actions)
    assert evalues(actions)[0].startswith("the process tree had 12 processes; the limit ")


# --- starts that fail -----------------------------------------------------------------------------


def test_a_worker_that_cannot_start_answers_what_waits_with_the_reason() -> None:
    pump = Pump()
    pump.execute("m1")
    pump.send(make_request("complete_request", "m2"))
    pump.send(make_request("comm_msg", "m3"))
    pump.say(Failed("IPython is broken", "Traceback ..."))
    actions = pump.die(None, 1)
    assert shown(tell(actions)) == [
        "m1 busy",
        "m1 error WorkerDied",
        "m1 execute_reply error WorkerDied",
        "m1 idle",
        "m2 busy",
        "m2 complete_reply ok",
        "m2 idle",
        "m3 busy",
        "m3 idle",
        "spawn",
    ]
    assert evalues(actions) == [
        "the worker could not start: IPython is broken\nTraceback ...; it is started again"
    ]
    assert pump.core.comms.info(None) == {}


def test_what_is_held_behind_a_blocking_cell_is_answered_too() -> None:
    pump = Pump()
    pump.execute("m1", "##blocking")
    pump.execute("m2", "##blocking")
    pump.send(make_request("kernel_info_request", "m3"))
    lines = shown(tell(pump.die(None, 1)))
    assert [line for line in lines if "reply" in line] == [
        "m1 execute_reply error WorkerDied",
        "m2 execute_reply error WorkerDied",
        "m3 kernel_info_reply ok",
    ]
    assert pump.core.deadline_s() is None


def test_failed_starts_back_off_and_say_when_the_next_is() -> None:
    pump = Pump()
    delays: list[str] = []
    for number in range(9):
        pump.execute(f"m{number}")
        actions = pump.die(None, 1)
        delays += [line for line in tell(actions) if line.startswith("spawn")]
        assert ("the next start is in" in evalues(actions)[0]) is (number > 0)
        pump.start()
    seconds = ["0.5", "1", "2", "4", "8", "16", "30", "30"]
    assert delays == ["spawn", *(f"spawn in {delay} s" for delay in seconds)]


def test_thousands_of_failed_starts_still_back_off() -> None:
    pump = Pump()
    for _ in range(1200):
        pump.die(None, 1)
        pump.start()
    assert tell(pump.die(None, 1))[-1] == "spawn in 30 s"


def test_a_worker_that_ran_a_job_ends_the_back_off() -> None:
    pump = Pump()
    for _ in range(4):
        pump.die(None, 1)
        pump.start()
    pump.ready()
    pump.execute("m1")
    assert "spawn" in tell(pump.die())


@pytest.mark.parametrize("ready", [False, True])
def test_a_worker_that_is_killed_before_it_is_of_use_backs_off_too(ready: bool) -> None:
    pump = Pump()
    spawns: list[str] = []
    for _ in range(3):
        if ready:
            pump.ready()
        pump.feed(LimitExceeded(MEMORY))
        spawns += [line for line in tell(pump.die(9, reason=MEMORY)) if line.startswith("spawn")]
        pump.start()
    assert spawns == ["spawn", "spawn in 0.5 s", "spawn in 1 s"]


def test_what_waits_for_a_worker_that_is_killed_at_its_start_is_answered() -> None:
    pump = Pump()
    pump.execute("m1")
    pump.feed(LimitExceeded(MEMORY))
    actions = pump.die(9, reason=MEMORY)
    assert "m1 execute_reply error WorkerDied" in tell(actions)
    assert evalues(actions)[0].startswith("the worker could not start: the process tree ")


def test_when_no_process_can_be_started_the_reason_is_told() -> None:
    pump = Pump()
    pump.execute("m1")
    pump.process = "none"
    actions = pump.feed(WorkerExited(None, None, reason=Reason(Why.START, "no process: ENOMEM")))
    assert evalues(actions) == [
        "the worker could not start: no process: ENOMEM; it is started again"
    ]


def test_a_failed_start_loses_no_variables_and_says_so_to_nobody() -> None:
    pump = Pump()
    assert shown(tell(pump.die(None, 1))) == ["spawn"]
    assert tell(pump.renew()) == ["everybody: idle"]


def test_a_second_death_before_the_next_worker_is_ready_is_announced_once(pump: Pump) -> None:
    assert shown(tell(pump.die())) == ["spawn", *RESTARTED]
    pump.start()
    assert shown(tell(pump.die(None, 1))) == ["spawn in 0.5 s"]
    assert tell(pump.renew()) == ["everybody: idle"]


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
    assert tell(pump.finish("m2")) == ["m2 execute_reply ok", "m2 idle"]
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
    assert tell(pump.finish("m2")) == ["m2 complete_reply ok", "m2 idle"]
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
