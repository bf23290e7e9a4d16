"""Checkpoint files: whole or not at all, refused when damaged, and the magic that makes them."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.error import UsageError

from plainshell import plain_shell
from unstuck.protocol import StreamName
from unstuck_worker import checkpoint
from unstuck_worker.transplant import file, parts
from unstuck_worker.transplant.file import CheckpointError
from worker.broker_double import ROOT, WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell

    from worker.conftest import StartWorker

FUZZED_FILES = int(os.environ.get("UNSTUCK_FUZZED_FILES", "400"))
"""How many damaged files are tried; 10,000 where somebody has the time."""
RUN_S = 60.0
CELLS = """
import numpy as np
a = [1, 2]
b = {'a': a}
big = np.arange(50_000.0)
def f(): return len(a)
class C: pass
c = C()
"""


@pytest.fixture(scope="module")
def module_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell:
        untyped: Any = shell
        untyped.counter = 1
        yield shell


@pytest.fixture
def shell(module_shell: InteractiveShell) -> Iterator[InteractiveShell]:
    """Give a shell that has the variables of ``CELLS``."""
    module_shell.reset(new_session=False)
    assert module_shell.run_cell(CELLS).success
    yield module_shell
    module_shell.reset(new_session=False)


@pytest.fixture
def saved(shell: InteractiveShell, tmp_path: Path) -> Path:
    path = tmp_path / "session.ckpt"
    file.save(shell, path)
    return path


def magic(shell: InteractiveShell, line: str) -> None:
    magics: Any = checkpoint.CheckpointMagics
    magics(shell).checkpoint(line)


# --- round trip -----------------------------------------------------------------------------------


def test_a_session_comes_back_in_another_process(start_worker: StartWorker) -> None:
    first, second = start_worker(), start_worker()
    first.run(CELLS)
    first.run("f()")
    assert "Saved 7 variables" in first.run("%checkpoint save x.ckpt").text()
    assert "Loaded 7 variables" in second.run("%checkpoint load x.ckpt").text()
    facts = "(b['a'] is a, f(), type(c) is C, float(big.sum()), big.flags.writeable, Out[2])"
    assert second.run(facts).result == "(True, 2, True, 1249975000.0, True, 2)"
    assert second.run("a.append(3); f()").result == "3"


def test_the_random_state_goes_on(start_worker: StartWorker) -> None:
    first, second = start_worker(), start_worker()
    first.run("import random, numpy\nrandom.seed(1); numpy.random.seed(2)")
    first.run("%checkpoint save x.ckpt")
    second.run("%checkpoint load x.ckpt")
    draw = "(random.random(), float(numpy.random.rand()))"
    assert second.run(draw).result == first.run(draw).result


def test_what_is_not_saved_is_named_with_its_reason(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("import threading\nlock = threading.Lock()")
    path = tmp_path / "x.ckpt"
    magic(shell, f"save {path}")
    reason = "  lock: cannot pickle '_thread.lock' object\n"
    assert capsys.readouterr().out.endswith(f"Not saved:\n{reason}")
    magic(shell, f"info {path}")
    told = capsys.readouterr().out
    assert f"Not in it:\n{reason}" in told
    assert "holds C, a, b, big, c, f, np, threading" in told


def test_loading_into_a_session_keeps_what_it_has_of_its_own(
    shell: InteractiveShell, saved: Path
) -> None:
    shell.run_cell("a = 'changed'; own = 1; del f")
    file.load(shell, saved)
    assert shell.user_ns["a"] == [1, 2]
    assert shell.user_ns["own"] == 1
    assert shell.user_ns["f"]() == 2


def test_a_file_with_blanks_in_its_name_can_be_quoted(
    shell: InteractiveShell, tmp_path: Path
) -> None:
    path = tmp_path / "my session.ckpt"
    magic(shell, f"save '{path}'")
    assert path.is_file()


@pytest.mark.parametrize("line", ["", "save", "save a b", "drop x", "save 'x"])
def test_what_is_no_order_is_refused_with_the_usage(shell: InteractiveShell, line: str) -> None:
    with pytest.raises(UsageError, match="%checkpoint save FILE"):
        magic(shell, line)


# --- writing --------------------------------------------------------------------------------------


KILLS = {
    "while a variable is pickled": "os.kill(os.getpid(), 9)",
    "while variables are pickled together": "calls.append(1)"
    "\n        if len(calls) > 2: os.kill(os.getpid(), 9)",
    "before it is on the disk": "file.os.fsync = lambda _: os.kill(os.getpid(), 9)",
    "before it has its name": "file.Path.replace = lambda *_: os.kill(os.getpid(), 9)",
}
SAVE_AND_DIE = """
import os, sys, tempfile
from pathlib import Path
import pathlib
from plainshell import plain_shell
from unstuck_worker.transplant import file
file.Path = pathlib.PosixPath
calls = []
class Deadly:
    def __reduce__(self):
        {kill}
        return (list, ())
with plain_shell(Path(tempfile.mkdtemp())) as shell:
    shell.counter = 1
    shell.user_ns.update(x='new', one=[1])
    deadly = Deadly()
    shell.user_ns.update(deadly=deadly, again=[deadly])
    file.save(shell, Path(sys.argv[1]))
print('saved')
"""


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_a_kill_during_a_save_leaves_the_old_file_whole(
    shell: InteractiveShell, saved: Path, kill: str
) -> None:
    before = saved.read_bytes()
    code = textwrap.dedent(SAVE_AND_DIE).format(kill=kill)
    paths = [str(ROOT / part) for part in ("kernel", "broker", "worker", "tests")]
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert saved.read_bytes() == before
    assert file.read(saved).header.names
    file.save(shell, saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_disk_that_is_full_leaves_the_old_file_whole(
    worker: WorkerDouble, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    worker.run(f"old = 1\n%checkpoint save {path}")
    before = path.read_bytes()
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, ({}, resource.RLIM_INFINITY))"
    outputs = worker.run(
        "import resource, numpy\ntoo_much = numpy.zeros(1_000_000)\n"
        + limit.format(1 << 20)
        + f"\ntry:\n    get_ipython().run_line_magic('checkpoint', 'save {path}')\nfinally:\n    "
        + limit.format(-1)
    )
    assert outputs.reply["evalue"] == f"cannot write {path}: File too large"
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["x.ckpt"]


def test_an_interrupt_ends_a_save_and_leaves_no_file(start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.run(
        "import time\nclass Slow:\n    def __reduce__(self):\n        print('in it', flush=True)\n"
        "        while True: time.sleep(0.01)\nslow = Slow()"
    )
    job = worker.submit("%checkpoint save x.ckpt")
    worker.wait_for(lambda: "in it" in worker.jobs[job].text())
    worker.signal()
    assert worker.wait(job).reply["ename"] == "KeyboardInterrupt"
    assert worker.run("import os; sorted(os.listdir())").result == "[]"


def test_a_file_that_somebody_else_saves_to_is_left_alone(
    shell: InteractiveShell, saved: Path
) -> None:
    with saved.with_name(".session.ckpt.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process is saving"):
            file.save(shell, saved)


def test_a_link_stays_a_link_and_the_file_is_private(shell: InteractiveShell, saved: Path) -> None:
    link = saved.with_name("link.ckpt")
    link.symlink_to(saved.name)
    shell.run_cell("more = 1")
    file.save(shell, link)
    assert link.is_symlink()
    assert "more" in file.read(saved).header.names
    assert saved.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_not_there_is_named(shell: InteractiveShell, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*: No such file or directory"):
        magic(shell, f"save {tmp_path / 'no' / 'x.ckpt'}")


@pytest.mark.parametrize("order", ["save", "load", "info"])
def test_what_is_no_file_is_named_and_left_as_it_is(
    shell: InteractiveShell, tmp_path: Path, order: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "circle").symlink_to("circle")
    before = {path.name: path.lstat().st_mode for path in tmp_path.iterdir()}
    for name, why in {
        "folder": "Is a directory",
        "pipe": "it is no regular file",
        "link": "it is no regular file",
        "circle": "(?i)symlink loop|too many levels",
        "/": "Is a directory",
    }.items():
        with pytest.raises(UsageError, match=why):
            magic(shell, f"{order} {tmp_path / name}")
    assert {path.name: path.lstat().st_mode for path in tmp_path.iterdir()} == before


# --- reading --------------------------------------------------------------------------------------


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Damage a file in one of the ways in which files are damaged."""
    data = bytearray(whole)
    at, other = sorted(chance.sample(range(len(data)), 2))
    match chance.randrange(8):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            del data[at:]
        case 2:
            del data[at:other]
        case 3:
            data[at:other] = bytes(other - at)
        case 4:
            data += chance.randbytes(chance.randrange(1, 100))
        case 5:
            data[at : at + 8] = struct.pack("!Q", chance.choice([2**63, 2**32 - 1, 2**40, 0]))
        case 6:
            data[at:at] = chance.randbytes(chance.randrange(1, 20))
        case _:
            data[at:other] = chance.randbytes(other - at)
    return bytes(data)


def test_a_damaged_file_is_refused_and_nothing_of_it_runs(
    shell: InteractiveShell, tmp_path: Path
) -> None:
    marker = tmp_path / "it ran"
    shell.user_ns["bomb"] = Bomb(str(marker))
    path = tmp_path / "x.ckpt"
    file.save(shell, path)
    whole, seed = path.read_bytes(), random.randrange(2**32)
    chance = random.Random(seed)
    before = dict(shell.user_ns)
    for number in range(FUZZED_FILES):
        data = damaged(whole, chance)
        if data == whole:
            continue
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"is refused|cannot read") as caught:
            file.load(shell, path)
        assert "\n" not in str(caught.value), (seed, number)
    assert dict(shell.user_ns) == before
    assert not marker.exists()
    path.write_bytes(whole)
    file.load(shell, path)
    assert marker.exists()


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _leave_mark, (self.path,)


def _leave_mark(path: str) -> str:
    with open(path, "w"):  # noqa: PTH123
        return path


PARTS = {
    "no end": (0, 1),
    "no header": (1, 2),
    "two headers": (0, 0, 2),
    "an end that counts groups that are not there": (0, 2),
    "something behind the end": (0, 1, 2, 1),
    "nothing": (),
}


@pytest.mark.parametrize("order", PARTS.values(), ids=PARTS)
def test_parts_that_are_right_but_not_in_order_are_refused(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    header = parts.Header("1", "3.11.1", "Linux", "2026-01-01", 1, ["x"])
    group = parts.Group(["x"], 3, [parts.Buffer(2, is_readonly=False)], has_code=False)
    whole: list[parts.Meta] = [header, group, parts.End(1)]
    data: list[list[parts.Chunk]] = [[], [b"abc", b"de"], []]
    path = tmp_path / "x.ckpt"
    path.write_bytes(
        parts.start() + b"".join(b"".join(parts.encode(whole[at], data[at])) for at in order)
    )
    with pytest.raises(CheckpointError, match="is refused: it is damaged"):
        file.read(path)


def test_a_file_of_a_newer_format_is_refused(saved: Path, shell: InteractiveShell) -> None:
    data = bytearray(saved.read_bytes())
    data[len(parts.MAGIC) : parts.START.size] = struct.pack("!I", parts.FORMAT + 1)
    saved.write_bytes(data)
    with pytest.raises(UsageError, match=r"a newer unstuck has written it: its format is 2"):
        magic(shell, f"load {saved}")


@pytest.mark.parametrize("content", [b"", b"x", b"not a checkpoint at all\n" * 10])
def test_what_is_no_checkpoint_is_refused(
    shell: InteractiveShell, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no checkpoint of unstuck"):
        magic(shell, f"load {path}")


def test_a_file_that_is_not_there_is_named(shell: InteractiveShell, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*: No such file"):
        magic(shell, f"load {tmp_path / 'none'}")


# --- autosave and restore -------------------------------------------------------------------------


def test_the_session_is_saved_while_nothing_runs_and_restored_at_the_start(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    first = start_worker(autosave_file="x.ckpt", autosave_every_s=1)
    first.run("a = [1]; b = a")
    first.run("a")
    first.wait_for((tmp_path / "x.ckpt").exists)
    second = start_worker(restore_file="x.ckpt")
    outputs = second.run("(a is b, Out, _2, In[1:3])")
    assert outputs.result == "(True, {2: [1]}, [1], ['a = [1]; b = a', 'a'])"
    assert outputs.reply["execution_count"] == 3
    assert "Loaded 2 variables" in outputs.text(StreamName.stderr)
    assert second.run("1").text(StreamName.stderr) == ""


def test_a_cell_that_starts_while_the_session_is_saved_is_saved_whole(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    first = start_worker(autosave_file="x.ckpt", autosave_every_s=1)
    first.run(
        "import time, pathlib\nclass Slow:\n    def __reduce__(self):\n"
        "        pathlib.Path('saving').touch(); time.sleep(0.5)\n        return (list, ())\n"
        "slow, x = Slow(), 1"
    )
    first.wait_for((tmp_path / "saving").exists)
    first.run("x = 2; y = 2")
    first.wait_for((tmp_path / "x.ckpt").exists)
    second = start_worker(restore_file="x.ckpt")
    assert second.run("(x, y)").result == "(2, 2)"


def test_a_restore_that_is_refused_is_told_at_the_first_cell(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"rubbish")
    outputs = start_worker(restore_file="x.ckpt").run("1")
    assert "Nothing is restored: " in outputs.text(StreamName.stderr)
    assert outputs.result == "1"


def test_nothing_is_told_where_nothing_was_saved_yet(start_worker: StartWorker) -> None:
    assert start_worker(restore_file="none.ckpt").run("1").text(StreamName.stderr) == ""
