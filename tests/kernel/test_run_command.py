"""``unstuck run`` as a process: its exit codes, what it says, and how it stops."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest

from e2e.notebooks import WAIT_S, load, save, wait_for
from e2e.spec import KERNEL, OURS, SOURCE_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KERNEL_OPTION = [] if KERNEL == OURS else ["--kernel", KERNEL]


@pytest.fixture(autouse=True)
def source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that are started from here find us, installed or not."""
    monkeypatch.setenv("PYTHONPATH", SOURCE_PATH)


class StartCommand(Protocol):
    """Start ``unstuck run`` in a folder; it ends with the test."""

    def __call__(self, folder: Path, *arguments: str) -> subprocess.Popen[str]: ...


@pytest.fixture
def start_command() -> Iterator[StartCommand]:
    with ExitStack() as commands:

        def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
            words = ["run", *arguments]
            if "--kernel" not in words:
                words += KERNEL_OPTION
            command = subprocess.Popen(
                [sys.executable, "-m", "unstuck", *words],
                cwd=folder,
                stderr=subprocess.PIPE,
                text=True,
            )
            commands.enter_context(command)
            commands.callback(command.kill)
            return command

        yield start


WAITING = (
    "import os, time\n"
    "print('started', flush=True)\n"
    "open('pids', 'w').write(f'{os.getpid()} {os.getppid()}\\n')\n"
    "time.sleep(60)"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_what_there_is_and_leaves_no_process(
    tmp_path: Path, start_command: StartCommand, number: signal.Signals
) -> None:
    save(tmp_path / "one.ipynb", WAITING, "print('never')")
    save(tmp_path / "two.ipynb", "1")
    command = start_command(tmp_path, "one.ipynb", "two.ipynb")
    pids = wait_for(lambda: _read(tmp_path / "pids"))
    command.send_signal(number)
    _, said = command.communicate(timeout=WAIT_S)
    assert command.returncode == 130, said
    cells = load(tmp_path / "one.out.ipynb").cells
    assert "started" in str(cells[0].outputs)
    assert "KeyboardInterrupt" in str(cells[0].outputs)
    assert cells[1].outputs == []
    assert "stopped" in said
    assert "two.ipynb: not run" in said
    assert not (tmp_path / "two.out.ipynb").exists()
    wait_for(lambda: not any(psutil.pid_exists(int(pid)) for pid in pids.split()))


def _read(path: Path) -> str:
    text = path.read_text() if path.exists() else ""
    return text if text.endswith("\n") else ""


def test_a_second_signal_does_not_wait_for_a_cell_that_ignores_the_first(
    tmp_path: Path, start_command: StartCommand
) -> None:
    stubborn = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: open('asked', 'w').close())\n"
        "open('pids', 'w').write(f'{os.getpid()}\\n')\n"
        "while True:\n    time.sleep(0.05)"
    )
    save(tmp_path / "one.ipynb", "print('kept')", stubborn)
    command = start_command(tmp_path, "one.ipynb", "--kernel", "python3")
    pids = wait_for(lambda: _read(tmp_path / "pids"))
    command.send_signal(signal.SIGINT)
    wait_for((tmp_path / "asked").exists)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=WAIT_S)
    assert command.returncode == 130, said
    cells = load(tmp_path / "one.out.ipynb").cells
    assert "kept" in str(cells[0].outputs)
    wait_for(lambda: not psutil.pid_exists(int(pids)))


def test_bad_notebooks_do_not_keep_the_others_from_running(
    tmp_path: Path, start_command: StartCommand
) -> None:
    (tmp_path / "bad.ipynb").write_text("{")
    save(tmp_path / "good.ipynb", "print('ran')")
    command = start_command(tmp_path, "bad.ipynb", "missing.ipynb", ".", "good.ipynb")
    _, said = command.communicate(timeout=WAIT_S)
    assert command.returncode == 2
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("unstuck: ")] == lines[:3]
    assert re.fullmatch(r"good\.ipynb: \[1/1\] done in \d+\.\d s: print\('ran'\)", lines[-2])
    assert "ran 1 of 1 cells" in lines[-1]
    assert "ran" in str(load(tmp_path / "good.out.ipynb").cells[0].outputs)


def test_a_failed_run_says_where_and_ends_with_code_1(
    tmp_path: Path, start_command: StartCommand
) -> None:
    save(tmp_path / "x.ipynb", "1", "def f():\n    return {}['key']\nf()", "3")
    command = start_command(tmp_path, "x.ipynb", "-o", "result.ipynb", "--quiet")
    _, said = command.communicate(timeout=WAIT_S)
    assert command.returncode == 1
    lines = said.splitlines()
    assert lines[0] == "x.ipynb: cell 2: KeyError: 'key'"
    assert any("return {}['key']" in line for line in lines)
    assert lines[-1].startswith("x.ipynb: failed at cell 2 (2 of 3 cells)")
    assert lines[-1].endswith("-> result.ipynb")
    assert (tmp_path / "result.ipynb").exists()


def test_a_quiet_run_that_went_well_says_nothing(
    tmp_path: Path, start_command: StartCommand
) -> None:
    save(tmp_path / "x.ipynb", "print('ran')")
    command = start_command(tmp_path, "x.ipynb", "--inplace", "-q")
    _, said = command.communicate(timeout=WAIT_S)
    assert (command.returncode, said) == (0, "")
    assert "ran" in str(load(tmp_path / "x.ipynb").cells[0].outputs)


def test_on_a_terminal_a_bar_shows_the_running_line_and_goes_away(tmp_path: Path) -> None:
    save(tmp_path / "x.ipynb", "x = 1", "import time; time.sleep(0.5)  # the slow one")
    ours_end, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "unstuck", "run", "x.ipynb", *KERNEL_OPTION],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150"},
        stderr=terminal,
    ) as command:
        os.close(terminal)
        said = _read_terminal(ours_end)
        assert command.wait(WAIT_S) == 0
    assert "1/2" in said
    assert "the slow one" in said
    last = said.splitlines()[-1].rpartition("\x1b[2K")[2]
    assert re.fullmatch(r"x\.ipynb: ran 2 of 2 cells in \d+\.\d s -> x\.out\.ipynb", last)


def _read_terminal(descriptor: int) -> str:
    """Read until the other side has closed, which Linux tells by an error."""
    pieces: list[bytes] = []
    with open(descriptor, "rb", buffering=0) as file, suppress(OSError):
        while piece := file.read(1 << 16):
            pieces.append(piece)
    return b"".join(pieces).decode()
