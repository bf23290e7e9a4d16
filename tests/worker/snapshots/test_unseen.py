"""With snapshots on, nothing that a cell can see differs from a worker without them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from worker.copies_double import SnapshotDouble


def with_copy_between(worker: SnapshotDouble, before: str, after: str) -> object:
    """Run a cell, have a copy taken, and give what the second cell prints as JSON."""
    worker.run_after(before)
    worker.snapshot()
    outputs = worker.run_after(f"import json\n{after}")
    assert worker.copies, "there is no copy that could be seen"
    return json.loads(outputs.text())


def test_os_wait_finds_no_child(worker: SnapshotDouble) -> None:
    after = "try:\n    os.wait()\nexcept ChildProcessError:\n    print('true')"
    assert with_copy_between(worker, "import os", after) is True


def test_a_sigchld_handler_hears_of_own_children_only(worker: SnapshotDouble) -> None:
    before = "import signal, subprocess\nheard = []\nsignal.signal(17, lambda *a: heard.append(1))"
    after = (
        "before = len(heard); subprocess.run(['true'])\n"
        "print(json.dumps([before, len(heard) > before]))"
    )
    assert with_copy_between(worker, before, after) == [0, True]


def test_psutil_shows_no_stranger(worker: SnapshotDouble) -> None:
    after = "print(len(psutil.Process().children(recursive=True)))"
    assert with_copy_between(worker, "import psutil", after) == 0


def test_a_child_that_reads_to_the_end_ends(worker: SnapshotDouble) -> None:
    before = "import subprocess\nchild = subprocess.Popen(['cat'], stdin=subprocess.PIPE)"
    after = "child.stdin.close(); print(child.wait(timeout=10))"
    assert with_copy_between(worker, before, after) == 0


def test_the_reader_of_a_pipe_sees_its_end(worker: SnapshotDouble) -> None:
    before = "import os\nreading, writing = os.pipe()"
    after = "os.close(writing); print(len(os.read(reading, 10)))"
    assert with_copy_between(worker, before, after) == 0


def test_a_closed_terminal_hangs_up(worker: SnapshotDouble) -> None:
    before = (
        "import os, pty, subprocess\nmaster, slave = pty.openpty()\n"
        "child = subprocess.Popen(['cat'], stdin=slave, stdout=slave); os.close(slave)"
    )
    after = "os.close(master); child.wait(timeout=10); print('true')"
    assert with_copy_between(worker, before, after) is True


def test_a_closed_server_frees_its_port(worker: SnapshotDouble) -> None:
    before = (
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "port = server.getsockname()[1]"
    )
    after = (
        "server.close()\n"
        "with socket.socket() as again:\n"
        "    again.bind(('127.0.0.1', port)); again.listen(); print('true')"
    )
    assert with_copy_between(worker, before, after) is True


def test_a_closed_connection_ends_for_its_peer(worker: SnapshotDouble) -> None:
    before = "import socket\none, other = socket.socketpair(); other.settimeout(10)"
    assert with_copy_between(worker, before, "one.close(); print(len(other.recv(1)))") == 0


def test_a_closed_file_frees_its_lock(worker: SnapshotDouble) -> None:
    before = (
        "import fcntl\nfile = open('locked', 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "import os; os.set_inheritable(file.fileno(), True)"
    )
    after = (
        "inherits = os.get_inheritable(file.fileno()); file.close(); again = open('locked')\n"
        "fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB); print(json.dumps(inherits))"
    )
    assert with_copy_between(worker, before, after) is True


def test_random_streams_go_on(worker: SnapshotDouble) -> None:
    before = "import random; random.seed(5); random.random()"
    after = "print(random.random() == [random.seed(5), random.random(), random.random()][2])"
    code = after.replace("print(", "print('true' if ").replace("[2])", "[2] else 'false')")
    assert with_copy_between(worker, before, code) is True


def test_no_exit_handler_runs_and_no_folder_vanishes(
    worker: SnapshotDouble, tmp_path: Path
) -> None:
    before = (
        "import atexit, os, tempfile\nfolder = tempfile.TemporaryDirectory(dir='.')\n"
        "atexit.register(lambda: open('ended', 'a').write(f'{os.getpid()} '))"
    )
    after = "print(json.dumps([os.path.isdir(folder.name), os.path.exists('ended'), os.getpid()]))"
    found = with_copy_between(worker, before, after)
    assert isinstance(found, list)
    assert found[:2] == [True, False]
    for copy in worker.copies:
        copy.connection.close()
    assert worker.stop() == 0
    assert (tmp_path / "ended").read_text() == f"{found[2]} "


def test_what_was_printed_is_printed_once(worker: SnapshotDouble) -> None:
    worker.run("import ctypes, sys")
    job = worker.submit(
        "ctypes.CDLL(None).printf(b'from c '); print('from python', end='');"
        "get_ipython().kernel.snapshots.request('now')"
    )
    worker.wait(job)
    worker.wait_for(lambda: worker.last() and worker.taken)
    worker.recover()
    worker.run_after("pass")
    assert worker.jobs[job].text().count("from python") == 1
    assert worker.jobs[job].text().count("from c") == 1


def test_a_users_hooks_around_a_fork_do_not_run(worker: SnapshotDouble) -> None:
    before = (
        "import os\nran = []\nos.register_at_fork(before=lambda: ran.append(1),"
        " after_in_parent=lambda: ran.append(2))"
    )
    after = (
        "seen = list(ran)\npid = os.fork()\nif not pid: os._exit(0)\n"
        "os.waitpid(pid, 0); print(json.dumps([seen, ran]))"
    )
    assert with_copy_between(worker, before, after) == [[], [1, 2]]


def test_garbage_is_collected_as_ever(worker: SnapshotDouble) -> None:
    before = (
        "import gc, weakref\nclass Node: pass\nnode = Node(); node.me = node\n"
        "seen = weakref.ref(node); on = gc.isenabled()"
    )
    after = "del node; gc.collect(); print(json.dumps([seen() is None, on, gc.isenabled()]))"
    assert with_copy_between(worker, before, after) == [True, True, True]


def test_a_warning_is_shown_as_often_as_without(worker: SnapshotDouble) -> None:
    worker.run("import warnings\ndef warn(): warnings.warn('look')\nwarn()")
    filters = "len(warnings.filters)"
    before = worker.run_after(filters).result
    worker.snapshot()
    outputs = worker.run_after(f"warn()\n{filters}")
    assert "look" not in outputs.text()
    assert outputs.result == before


def test_threads_and_their_names_are_the_same(worker: SnapshotDouble) -> None:
    before = (
        "import threading, time\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(1); pool.submit(abs, 1).result()\n"
        "names = sorted(t.name for t in threading.enumerate())"
    )
    after = (
        "print(json.dumps(set(names) <= {t.name for t in threading.enumerate()}))\n"
        "assert pool.submit(abs, -3).result(10) == 3"
    )
    assert with_copy_between(worker, before, after) is True


def test_a_users_pid_group_and_session_stay(worker: SnapshotDouble) -> None:
    before = "import os\nids = [os.getpid(), os.getpgrp(), os.getsid(0), os.getppid()]"
    after = "print(json.dumps(ids == [os.getpid(), os.getpgrp(), os.getsid(0), os.getppid()]))"
    assert with_copy_between(worker, before, after) is True
