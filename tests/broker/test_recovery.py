"""Deaths, restarts and shutdowns: what is answered, in which order, and what comes next."""

from __future__ import annotations

import pytest

from pump import Pump, make_request
from unstuck.protocol import Failed, SetConcurrencyMode
from unstuck.typing import KernelConcurrencyMode
from unstuck_broker.events import LimitExceeded, WorkerExited
from unstuck_broker.reason import STOP, Reason, Why, over_limit
from unstuck_broker.recovery import describe
from words import evalues, shown, tell

RESTARTED = ["everybody: restarting", "everybody: starting"]
MEMORY = over_limit(Why.MEMORY, 2_000_000_000, 1_000_000_000)
COMM = b'{"comm_id": "c1", "target_name": "t"}'


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
