"""Jobs that wait: their order, one at a time per queue, and what they weigh."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pump import make_request
from unstuck.config import Config
from unstuck.typing import KernelConcurrencyMode, MsgType
from unstuck_broker.backlog import Backlog
from unstuck_broker.gate import Arrival
from unstuck_broker.job import Job, make_job


def job(number: int, mode: str = "queue", subshell: str | None = None) -> Job:
    request = make_request(msg_id=f"m{number}", subshell=subshell, run_mode=mode)
    arrival = Arrival(number, request, 1.0)
    mode_of_all = KernelConcurrencyMode.default
    return make_job(arrival, MsgType.execute_request, Config(), mode_of_all)


def numbers(jobs: list[Job]) -> list[int]:
    return [job.number for job in jobs]


def test_a_queue_gives_one_job_until_it_has_finished() -> None:
    backlog = Backlog()
    first, second = job(1), job(2)
    backlog.add(first)
    backlog.add(second)
    assert backlog.next_jobs() == [first]
    assert backlog.next_jobs() == []
    backlog.finished(first)
    assert backlog.next_jobs() == [second]


def test_another_job_s_end_does_not_free_the_queue() -> None:
    backlog = Backlog()
    for waiting in (job(1), job(2)):
        backlog.add(waiting)
    backlog.next_jobs()
    backlog.finished(job(7))
    backlog.finished(job(8, "task"))
    backlog.finished(job(9, subshell="gone"))
    assert backlog.next_jobs() == []


def test_what_waited_for_a_worker_starts_in_the_order_of_arrival() -> None:
    backlog = Backlog()
    backlog.open_queue("s")
    for waiting in (job(1), job(2, "task"), job(3, subshell="s"), job(4, "thread"), job(5)):
        backlog.add(waiting)
    assert numbers(backlog.next_jobs()) == [1, 2, 3, 4]


def test_jobs_are_taken_out_in_the_order_of_arrival() -> None:
    backlog = Backlog()
    backlog.open_queue("s")
    for waiting in (job(1), job(2, "task"), job(3, subshell="s"), job(4)):
        backlog.add(waiting)
    assert numbers(backlog.take(lambda job: job.number != 3)) == [1, 2, 4]
    assert numbers(backlog.take(lambda _job: True)) == [3]
    assert backlog.empty()


def test_a_closed_queue_gives_what_waited_in_it() -> None:
    backlog = Backlog()
    backlog.open_queue("s")
    backlog.add(job(1, subshell="s"))
    backlog.add(job(2, subshell="s"))
    backlog.next_jobs()
    assert numbers(backlog.close_queue("s")) == [2]
    assert backlog.empty()
    assert backlog.size_bytes == 0


@given(
    st.lists(st.sampled_from(["queue", "task", "thread", "next", "take", "finish"]), max_size=30)
)
def test_the_memory_of_what_waits_is_always_counted(steps: list[str]) -> None:
    backlog = Backlog()
    waiting: dict[int, Job] = {}
    running: list[Job] = []
    for number, step in enumerate(steps):
        match step:
            case "next":
                running += (started := backlog.next_jobs())
                for one in started:
                    del waiting[one.number]
            case "take":
                for one in backlog.take(lambda job: job.number % 2 == 0):
                    del waiting[one.number]
            case "finish" if running:
                backlog.finished(running.pop(0))
            case "queue" | "task" | "thread":
                waiting[number] = job(number, step)
                backlog.add(waiting[number])
            case _:
                pass
        assert backlog.size_bytes == sum(one.size_bytes for one in waiting.values())
        assert backlog.empty() == (not waiting)
