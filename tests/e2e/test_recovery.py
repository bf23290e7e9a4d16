"""A worker that dies, however it does, costs one cell; the kernel says why and goes on."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from e2e.kernel_client import WAIT_S
from e2e.processes import forks, template, wait_until_gone, worker
from e2e.spec import SOURCE_PATH, ours, spec_for_tests, write_spec

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ours

SETTINGS = ("introspection_deadline_s=1", "snapshots=off")
DIE = "import os\nos._exit(3)"
BACKLOG = "import time\ntime.sleep(0.2)\n"
"""Before a death: what is sent right behind has arrived when it comes."""


def said(result: Result) -> str:
    """Give the error and the whole traceback of a reply."""
    assert result.status == "error", result
    return "\n".join([result.content["evalue"], *result.content["traceback"]])


# --- what the reply says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
        ("import os\nos.abort()", "SIGABRT"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGBUS)", "SIGBUS"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
        ("import os\nos._exit(3)", "exit code 3"),
        ("import os\nos._exit(0)", "exit code 0"),
        ("import threading, os\nt = threading.Thread(target=os._exit, args=(7,))\nt.start()\n"
         "t.join()", "exit code 7"),
    ],
)  # fmt: skip
def test_a_death_costs_its_cell_and_the_reply_names_the_cause(
    kernel: Kernel, code: str, cause: str
) -> None:
    result = kernel.run(code)
    assert result.content["ename"] == "WorkerDied"
    assert cause in result.content["evalue"]
    assert "all variables were lost" in result.content["evalue"]
    assert result.error["evalue"] == result.content["evalue"]
    assert kernel.run_ok("1 + 1").value == "2"


@pytest.mark.parametrize("crash", ["ctypes.string_at(0)", "os.abort()"])
def test_a_crash_shows_the_python_stack_in_its_traceback(kernel: Kernel, crash: str) -> None:
    result = kernel.run(f"import ctypes, os\ndef crashing():\n    {crash}\ncrashing()")
    assert "in crashing" in said(result)
    assert "line 3" in said(result)
    assert "Fatal Python error" in said(result)
    assert "Fatal Python error" not in result.stderr


def test_a_death_shows_the_last_lines_of_fd_2(kernel: Kernel) -> None:
    result = kernel.run("import os\nos.write(2, b'my last words\\n')\nos._exit(1)")
    assert "my last words" in said(result)


def test_sys_exit_in_a_thread_ends_that_thread_only(kernel: Kernel) -> None:
    pid = worker(kernel).pid
    kernel.run_ok(
        "import sys, threading\nt = threading.Thread(target=sys.exit)\nt.start()\nt.join()"
    )
    assert worker(kernel).pid == pid


def test_a_stopped_worker_goes_on_where_it_was(kernel: Kernel) -> None:
    process = worker(kernel)
    result = kernel.execute("print('begun')\nimport time\ntime.sleep(0.5)\n'done'")
    kernel.wait_for_text(result, "begun")
    process.suspend()
    for kind in ("kernel_info_request", "usage_request", "stack_request", "comm_info_request"):
        assert kernel.request(kind, channel="control").status == "ok"
    assert kernel.request("complete_request", {"code": "pri", "cursor_pos": 3}).status == "ok"
    assert not result.is_complete
    process.resume()
    assert kernel.finish(result).value == "'done'"


def test_a_worker_that_closes_its_lanes_is_replaced(kernel: Kernel) -> None:
    result = kernel.run("import os, time\nos.closerange(3, 20)\ntime.sleep(100)")
    # Its lane thread may see the end before the broker does.
    assert "closed its output lane" in said(result) or "exit code 1" in said(result)
    assert kernel.run_ok("1 + 1").value == "2"


def test_a_worker_that_writes_rubbish_into_its_lane_is_replaced(kernel: Kernel) -> None:
    result = kernel.run(
        "import os, stat, time\n"
        "for fd in range(3, 9):\n"
        "    if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, b'\\xff' * 64)\n"
        "time.sleep(100)"
    )
    assert "rubbish" in said(result)
    assert kernel.run_ok("1 + 1").value == "2"


def test_children_that_hold_fd_1_neither_delay_the_reply_nor_live_on(kernel: Kernel) -> None:
    result = kernel.run(
        "import os, subprocess\n"
        "for own_session in (False, True):\n"
        "    child = subprocess.Popen(['sleep', '1000'], start_new_session=own_session)\n"
        "    print(child.pid, flush=True)\n"
        "os._exit(3)"
    )
    assert "exit code 3" in said(result)
    wait_until_gone(psutil.Process(int(pid)) for pid in result.stdout.split() if is_there(pid))


def is_there(pid: str) -> bool:
    there: bool = psutil.pid_exists(int(pid))
    return there


# --- who is told, and in which order --------------------------------------------------------------


def test_what_is_queued_behind_a_death_is_aborted_or_runs_as_it_asked(kernel: Kernel) -> None:
    first = kernel.execute(BACKLOG + DIE)
    second = kernel.execute("'second'")
    kernel.finish(first)
    assert kernel.finish(second).status == "aborted"
    first = kernel.execute(BACKLOG + DIE, stop_on_error=False)
    second = kernel.execute("'second'")
    kernel.finish(first)
    assert kernel.finish(second).value == "'second'"


def test_frontends_see_the_restart_when_every_request_is_answered(kernel: Kernel) -> None:
    # Not the manager's: two clients of one session take each other's place at the kernel.
    listener = BlockingKernelClient(connection_file=kernel.manager.connection_file)
    listener.load_connection_file()
    listener.start_channels(shell=False, stdin=False, hb=False, control=False)
    try:
        while listener.get_iopub_msg(timeout=WAIT_S)["msg_type"] != "iopub_welcome":
            pass
        first = kernel.execute(BACKLOG + DIE)
        second = kernel.execute("2")
        states: list[tuple[str, str]] = []
        while states[-1:] != [("", "idle")]:
            message: dict[str, Any] = listener.get_iopub_msg(timeout=WAIT_S)
            if message["msg_type"] == "status":
                parent = (message["parent_header"] or {}).get("msg_id", "")
                states.append((parent, message["content"]["execution_state"]))
    finally:
        listener.stop_channels()
    assert states == [
        (first.msg_id, "busy"),
        (first.msg_id, "idle"),
        (second.msg_id, "busy"),
        (second.msg_id, "idle"),
        ("", "restarting"),
        ("", "starting"),
        ("", "idle"),
    ]
    kernel.finish(first)
    kernel.finish(second)


def test_a_death_closes_the_comms(kernel: Kernel) -> None:
    kernel.run_ok("from comm import create_comm\nopened = create_comm('target')")
    assert kernel.request("comm_info_request").content["comms"]
    kernel.run(DIE)
    assert kernel.request("comm_info_request").content["comms"] == {}
    closes = [m for m in kernel.strays if m["header"]["msg_type"] == "comm_close"]
    assert len(closes) == 1


def test_the_death_of_an_idle_worker_is_shown_and_the_next_cell_runs(kernel: Kernel) -> None:
    process = worker(kernel)
    kernel.forget()
    process.kill()
    kernel.wait(lambda: "restarting" in stray_states(kernel), "status: restarting")
    assert kernel.run_ok("1 + 1").value == "2"


def stray_states(kernel: Kernel) -> list[str]:
    return [
        m["content"]["execution_state"]
        for m in kernel.strays
        if m["header"]["msg_type"] == "status"
    ]


# --- starts ---------------------------------------------------------------------------------------


def test_a_worker_that_cannot_start_says_why_backs_off_and_is_well_again(
    start_kernel: StartKernel, private_folders: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "IPython"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('IPython is broken here')")
    spec = spec_for_tests()
    spec["env"]["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{SOURCE_PATH}"
    kernel = start_kernel(write_spec(private_folders / "path", "broken", spec))
    answers = [kernel.run("1").content for _ in range(3)]
    assert {answer["ename"] for answer in answers} == {"WorkerDied"}
    assert all("could not start" in answer["evalue"] for answer in answers)
    assert all("IPython is broken here" in answer["evalue"] for answer in answers)
    assert "the next start is in " in answers[-1]["evalue"]
    shutil.rmtree(broken)
    while (result := kernel.run("1 + 1")).status == "error":
        assert "could not start" in result.content["evalue"]
    assert result.value == "2"


def test_an_error_in_a_startup_file_is_not_fatal(start_kernel: StartKernel, tmp_path: Path) -> None:
    folder = tmp_path / "profile_default" / "startup"
    folder.mkdir(parents=True)
    (folder / "00-works.py").write_text("from_startup = 42")
    (folder / "01-broken.py").write_text("import nothing_of_this_name")
    kernel = start_kernel(env={"IPYTHONDIR": str(tmp_path)})
    assert kernel.evaluate("from_startup") == "42"


def test_a_restart_works_when_the_template_is_dead_or_stopped(start_kernel: StartKernel) -> None:
    kernel = start_kernel(settings=["shutdown_grace_s=1"])
    stopped = template(kernel)
    stopped.suspend()
    for _ in range(2):  # The first takes the spare.
        kernel.request("restart_request", channel="control")
        assert kernel.run_ok("1 + 1").value == "2"
    wait_until_gone([stopped])
    kernel = start_kernel()
    template(kernel).kill()
    kernel.run(DIE)
    assert kernel.run_ok("1 + 1").value == "2"
    kernel.run(DIE)
    assert kernel.run_ok("1 + 1").value == "2"


def test_a_restart_works_when_the_spare_is_dead(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    fork, spare = forks(kernel)
    spare.kill()
    kernel.request("restart_request", channel="control")
    assert kernel.run_ok("1 + 1").value == "2"
    wait_until_gone([fork, spare])
    assert fork not in forks(kernel)


def test_the_next_worker_is_the_spare(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    _, spare = forks(kernel)
    kernel.request("restart_request", channel="control")
    assert worker(kernel) == spare
    kernel.run(DIE)
    assert kernel.run_ok("1 + 1").value == "2"


def test_workers_killed_while_they_start_leave_no_request_unanswered(kernel: Kernel) -> None:
    for _ in range(5):
        spared = {kernel.pid, template(kernel).pid}
        dying = kernel.execute(DIE)
        waiting = kernel.execute("1 + 1", stop_on_error=False)
        kernel.wait(lambda dying=dying: dying.is_complete, "the death")  # type: ignore[misc]
        for process in kernel.tree:
            if process.pid not in spared:
                os.kill(process.pid, signal.SIGKILL)
        assert kernel.finish(waiting).status in ("ok", "aborted", "error")
        assert kernel.run("1").status in ("ok", "error")
    while kernel.run("1").status != "ok":
        pass


# --- what children get ----------------------------------------------------------------------------

LINKS = """
import os

def links(first, last):
    found = set()
    for fd in range(first, last):
        try:
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return found
"""


def test_programs_that_a_cell_starts_inherit_no_descriptor_of_ours(kernel: Kernel) -> None:
    program = LINKS + "print(sorted(links(3, 100)))"
    kernel.run_ok(
        f"{LINKS}\nimport subprocess, sys\n"
        "ours = links(3, 9)\n"
        f"done = subprocess.run([sys.executable, '-c', {program!r}], close_fds=False,"
        " capture_output=True, text=True)\n"
        "theirs = set(eval(done.stdout))"
    )
    assert int(kernel.evaluate("len(ours)")) >= 5
    assert kernel.evaluate("theirs & ours") == "set()"


def test_forked_copies_hold_no_lane(kernel: Kernel) -> None:
    kernel.run_ok(
        f"{LINKS}\nimport multiprocessing\n"
        "ours = {link for link in links(3, 9) if link.startswith(('socket', 'pipe'))}\n"
        "def look(queue): queue.put(links(3, 200))\n"
        "context = multiprocessing.get_context('fork')\n"
        "queue = context.Queue()\n"
        "child = context.Process(target=look, args=(queue,))\n"
        "child.start()\n"
        "theirs = queue.get(timeout=10)\n"
        "child.join(10)"
    )
    assert int(kernel.evaluate("len(ours)")) >= 4
    assert kernel.evaluate("theirs & ours") == "set()"
