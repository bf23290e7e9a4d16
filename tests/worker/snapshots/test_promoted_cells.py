"""Cells of a promoted copy run, print, ask, are interrupted and end as those of any worker."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from unstuck.protocol import Finished
from unstuck.typing import MsgType, RunMode
from worker.copies_double import SnapshotDouble, values

if TYPE_CHECKING:
    from pathlib import Path

    from worker.broker_double import Outputs


def says_up(outputs: Outputs) -> bool:
    return "up" in outputs.text()


def test_cells_in_threads_subshells_and_tasks_work_again(worker: SnapshotDouble) -> None:
    def run_all(text: str) -> list[str]:
        jobs = [
            worker.submit(f"##thread\nprint({text!r})", mode=RunMode.thread),
            worker.submit(f"print({text!r})", subshell="sub"),
            worker.submit(f"print({text!r})", mode=RunMode.task),
        ]
        return [worker.wait(job).text() for job in jobs]

    assert run_all("before") == ["before\n"] * 3
    worker.run("pass")
    copy = worker.wait_for_copy()
    assert copy.ready.lost == []
    worker.recover()
    assert run_all("after") == ["after\n"] * 3
    job = worker.request(
        MsgType.complete_request, {"code": "pri", "cursor_pos": 3}, mode=RunMode.thread
    )
    assert "print" in worker.wait(job).reply["matches"]


def test_jobs_of_the_killed_worker_never_end_again(worker: SnapshotDouble) -> None:
    task = worker.submit(
        "##task\nimport asyncio\ntry:\n    await asyncio.sleep(100)\nfinally:\n    ended = True",
        mode=RunMode.task,
    )
    copy = worker.snapshot()
    assert copy.ready.lost == ["the ##task cell that runs"]
    worker.recover()
    worker.wait_for(lambda: worker.run_after("'ended' in globals()").result == "True")
    finished = [m.job for m in worker.all if isinstance(m, Finished)]
    assert task not in finished


def test_an_interrupt_reaches_cells_of_a_promoted_copy(worker: SnapshotDouble) -> None:
    worker.run("import time")
    worker.wait_for_copy()
    worker.recover()
    for code in ("time.sleep(30)", "import asyncio; await asyncio.sleep(30)", "while True: pass"):
        job = worker.submit(f"print('up', flush=True)\n{code}")
        worker.wait_for(partial(says_up, worker.jobs[job]))
        began_s = time.monotonic()
        worker.signal(signal.SIGINT)
        assert worker.wait(job).reply["ename"] == "KeyboardInterrupt"
        assert time.monotonic() - began_s < 10


def test_prints_of_c_code_and_children_are_heard(worker: SnapshotDouble) -> None:
    worker.run("import subprocess, os")
    worker.wait_for_copy()
    worker.recover()
    worker.run_after("print('one'); subprocess.run(['echo', 'two']); os.write(1, b'three\\n');")
    worker.wait_for(lambda: "three" in worker.jobs[worker.running].text())
    assert worker.jobs[worker.running].text() == "one\ntwo\nthree\n"


def test_a_question_is_answered_in_a_promoted_copy(worker: SnapshotDouble) -> None:
    worker.run("pass")
    worker.wait_for_copy()
    worker.recover()
    job = worker.submit("input('name? ')")
    worker.wait_for(lambda: worker.requests)
    worker.answer("me")
    assert worker.wait(job).result == "'me'"


def test_a_promoted_copy_ends_with_its_exit_handlers(
    worker: SnapshotDouble, tmp_path: Path
) -> None:
    worker.run(
        "import atexit, tempfile, pathlib\nfolder = tempfile.TemporaryDirectory(dir='.')\n"
        "atexit.register(lambda: pathlib.Path('ended').write_text('yes'))"
    )
    worker.wait_for_copy()
    worker.recover()
    assert worker.stop() == 0
    assert (tmp_path / "ended").read_text() == "yes"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_an_alarm_of_before_still_comes(worker: SnapshotDouble) -> None:
    worker.run(
        "import signal, time\nrang = []\nsignal.signal(signal.SIGALRM, lambda *a: rang.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 3.0)"
    )
    worker.wait_for_copy()
    worker.recover()
    code = (
        "end = time.monotonic() + 20\nwhile not rang and time.monotonic() < end: time.sleep(0.01)"
    )
    assert worker.run_after(f"{code}\nrang").result == "[1]"


def test_a_comm_of_before_is_heard_in_a_promoted_copy(worker: SnapshotDouble) -> None:
    worker.run(
        "from comm import create_comm\nheard = []\ncomm = create_comm(target_name='t')\n"
        "comm.on_msg(lambda message: heard.append(message['content']['data']))"
    )
    worker.wait_for_copy()
    comm_id = worker.run("print(comm.comm_id)").text().strip()
    worker.recover(worker.copies[0])
    job = worker.request(MsgType.comm_msg, {"comm_id": comm_id, "data": {"pressed": 1}})
    worker.wait(job)
    assert values(worker, "heard") == [{"pressed": 1}]
    worker.run_after("comm.send({'answer': 2})")
    (content,) = worker.jobs[worker.running].published("comm_msg")
    assert content == {"comm_id": comm_id, "data": {"answer": 2}}
