"""The kernel's magics, called as a cell calls them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from IPython.core.error import UsageError

from plainshell import Record, plain_shell, run
from unstuck.caller import Caller
from unstuck.config import SETTINGS, Config, settings_of
from unstuck.future import Future
from unstuck.jobcontext import JobContext, current_job
from unstuck.protocol import AskRestart, SetSettings
from unstuck_worker import magics
from unstuck_worker.kernel import UnstuckKernel
from unstuck_worker.settings import meanings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture
def connection_file(tmp_path: Path) -> Path:
    path = tmp_path / "kernel-1.json"
    path.write_text('{"key": "the key"}')
    return path


@pytest.fixture(scope="module")
def module_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell:
        magics.load(shell)
        yield shell


@pytest.fixture
def shell(
    module_shell: InteractiveShell, record: Record, connection_file: Path
) -> InteractiveShell:
    """Give the module's shell a kernel of its own for this test."""
    untyped: Any = module_shell
    untyped.kernel = UnstuckKernel(
        module_shell,
        record.publish,
        record.send,
        connection_file=str(connection_file),
        settings=settings_of(Config()),
    )
    untyped.kernel.list_subshells = lambda: ["sub-1", "sub-2"]
    return module_shell


def call(shell: InteractiveShell, name: str, line: str = "") -> Any:  # noqa: ANN401
    return shell.run_line_magic(name, line)


async def call_cell(shell: InteractiveShell, name: str, line: str, body: str) -> Any:  # noqa: ANN401
    """Call a cell magic in an event loop with a Caller, as the worker's shell does."""
    async with asyncio.timeout(60), Caller(create=True, protected=True):
        untyped: Any = shell
        found = await untyped.run_cell_magic(name, line, body)
        if isinstance(found, Future):
            return found, await found
        return found


# --- about the kernel -----------------------------------------------------------------------------


def test_connect_info_shows_the_file_and_how_to_use_it(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], connection_file: Path
) -> None:
    call(shell, "connect_info")
    shown = capsys.readouterr().out
    assert '{"key": "the key"}' in shown
    assert f"--existing {connection_file}" in shown


def test_connect_info_without_a_file_says_so(
    shell: InteractiveShell, connection_file: Path
) -> None:
    connection_file.unlink()
    with pytest.raises(UsageError, match="no connection file"):
        call(shell, "connect_info")


def test_a_qt_console_is_opened_on_this_kernel(
    shell: InteractiveShell,
    connection_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    package = tmp_path / "first" / "qtconsole"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "qtconsoleapp.py").write_text(
        "import os, sys\ndef main(): print(sys.argv[1:], os.getpid() == os.getsid(0))"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    call(shell, "qtconsole", "--style 'my style'")
    untyped: Any = shell
    (console,) = untyped.kernel.processes.values()
    assert console.wait(20) == 0
    options = ["--existing", str(connection_file), "--style", "my style"]
    assert capfd.readouterr().out == f"{options} True\n"


def test_a_qt_console_that_is_not_installed_is_named(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="not installed"):
        call(shell, "qtconsole")


def test_callers_prints_the_reference_s_table(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Caller(create=True, protected=True):
            other = Caller.start_new(name="helper")
            call(shell, "callers")
            other.stop()

    asyncio.run(main())
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert header == "Running\tProtected\t\t\tName"
    assert rule == "─" * 70
    assert f"   ✓\t   🔐\t\t{threading.current_thread().name}\t← current thread" in rows
    assert "   ✓\t\t\thelper\t" in rows


def test_subshell_says_where_the_cell_runs(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    token = current_job.set(JobContext(1, subshell="sub-2"))
    try:
        call(shell, "subshell")
    finally:
        current_job.reset(token)
    shown = capsys.readouterr().out
    assert "subshell id: sub-2\n" in shown
    assert "subshell list: ['sub-1', 'sub-2']\n" in shown
    assert f"thread id: {threading.get_ident()}\n" in shown


def test_restart_asks_the_broker(shell: InteractiveShell, record: Record) -> None:
    call(shell, "restart")
    assert record.orders == [AskRestart()]


# --- settings -------------------------------------------------------------------------------------


def test_the_table_has_every_setting_with_its_value_and_meaning(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    call(shell, "unstuck")
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[: len(SETTINGS)]} == set(SETTINGS)
    assert any("interrupt_grace_s" in line and "2.0" in line and "stack" in line for line in lines)


def test_a_long_value_does_not_push_the_other_meanings_out_of_the_page(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    call(shell, "unstuck")
    rows = capsys.readouterr().out.splitlines()[: len(SETTINGS)]
    starts = {row.split()[0]: row.index(meanings()[row.split()[0]]) for row in rows}
    assert starts.pop("matplotlib_backend") > starts["jedi"]
    assert len(set(starts.values())) == 1
    assert starts["jedi"] < 50


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, meaning in meanings().items() if not meaning] == []
    assert set(meanings()) == set(SETTINGS)


def test_setting_a_value_tells_the_broker_and_the_table(
    shell: InteractiveShell, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    call(shell, "unstuck", "interrupt_grace_s 7")
    call(shell, "unstuck", "interrupt_policy = never")
    assert record.orders == [
        SetSettings({"interrupt_grace_s": 7.0}),
        SetSettings({"interrupt_policy": "never"}),
    ]
    capsys.readouterr()
    call(shell, "unstuck", "interrupt_grace_s")
    shown = capsys.readouterr().out
    assert "7.0 *" in shown
    assert "interrupt_policy" not in shown


def test_the_worker_s_own_settings_take_effect_at_once(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    call(shell, "unstuck", "jedi false")
    assert shell.Completer.use_jedi is False
    call(shell, "unstuck", "history false")
    assert shell.history_manager is not None
    assert shell.history_manager.enabled is False
    assert "from now on" in capsys.readouterr().out
    call(shell, "unstuck", "profile other")
    assert "from the next restart on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no_such_setting 3", "unknown setting 'no_such_setting': it is one of"),
        ("no_such_setting", "unknown setting"),
        ("interrupt_grace_s soon", "bad setting"),
        ("interrupt_grace_s -1", "bad setting"),
        ("interrupt_policy sometimes", "bad setting"),
        ("stream_bytes 4096", r"read once, when the kernel starts, and stays 65536: choose it"),
        ("backlog_bytes = 1", "`unstuck install --set backlog_bytes=1`"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_changes_nothing(
    shell: InteractiveShell, record: Record, line: str, said: str
) -> None:
    untyped: Any = shell
    before = dict(untyped.kernel.settings)
    with pytest.raises(UsageError, match=said):
        call(shell, "unstuck", line)
    assert record.orders == []
    assert untyped.kernel.settings == before


# --- %%thread and %%task --------------------------------------------------------------------------


def test_thread_runs_the_body_elsewhere_in_the_same_namespace_and_gives_its_value(
    shell: InteractiveShell,
) -> None:
    run(shell, "import threading\na = 40")
    body = "b = a + 2\n(b, threading.current_thread() is threading.main_thread())\n"
    assert asyncio.run(call_cell(shell, "thread", "", body)) == (42, False)
    assert shell.user_ns["b"] == 42


def test_thread_takes_a_name_and_a_backend(shell: InteractiveShell) -> None:
    run(shell, "import threading, sniffio")
    body = "(threading.current_thread().name, sniffio.current_async_library())\n"
    line = "name=reader backend=trio"
    try:
        assert asyncio.run(call_cell(shell, "thread", line, body)) == ("reader", "trio")
    finally:
        Caller.stop_all()


def test_task_runs_in_this_thread_s_loop_with_await(shell: InteractiveShell) -> None:
    run(shell, "import asyncio, threading")
    body = "await asyncio.sleep(0)\nthreading.current_thread().name\n"
    assert asyncio.run(call_cell(shell, "task", "", body)) == threading.current_thread().name


def test_without_waiting_the_future_is_given(shell: InteractiveShell) -> None:
    for name in ("task", "thread"):
        future, result = asyncio.run(call_cell(shell, name, "wait=no", "6 * 7\n"))
        assert isinstance(future, Future)
        assert result == 42


def test_another_word_for_the_waiting_is_refused_with_the_one_that_there_is(
    shell: InteractiveShell,
) -> None:
    with pytest.raises(UsageError, match="%%task takes wait=no, not wait=maybe"):
        asyncio.run(call_cell(shell, "task", "wait=maybe", "1\n"))


def test_the_job_of_the_cell_is_the_body_s(shell: InteractiveShell) -> None:
    run(shell, "from unstuck.jobcontext import current_job")
    context = JobContext(1)
    token = current_job.set(context)
    try:
        found = asyncio.run(call_cell(shell, "thread", "", "current_job.get()\n"))
    finally:
        current_job.reset(token)
    assert found is context


def test_an_error_of_the_body_is_the_cell_s(shell: InteractiveShell) -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(call_cell(shell, "thread", "", "a = 1\n1 / 0\n"))
    with pytest.raises(SyntaxError):
        asyncio.run(call_cell(shell, "task", "", "a = = 1\n"))
    assert shell.user_ns["a"] == 1


def test_a_semicolon_keeps_the_value_from_being_shown(shell: InteractiveShell) -> None:
    assert asyncio.run(call_cell(shell, "task", "", "6 * 7;\n")) is None
    assert asyncio.run(call_cell(shell, "task", "", "a = 6\n")) is None


def test_ipython_syntax_works_in_the_body(shell: InteractiveShell) -> None:
    assert asyncio.run(call_cell(shell, "thread", "", "x = %pwd\nbool(x)\n")) is True


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("thread", "colour=red", "unknown option colour"),
        ("thread", "backend=gevent", "unknown backend"),
        ("thread", "name", "options as name=value"),
        ("task", "name=a", "unknown option name"),
    ],
)
def test_options_that_are_none_are_refused(
    shell: InteractiveShell, name: str, line: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        asyncio.run(call_cell(shell, name, line, "1\n"))


# --- pages, files, the frontend -------------------------------------------------------------------


@pytest.fixture
def pages(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what goes to the pager."""
    shown: list[str] = []
    monkeypatch.setitem(
        cast("Any", shell.hooks), "show_in_pager", lambda text, **_how: shown.append(text)
    )
    return shown


def test_less_and_more_show_a_file_in_the_pager(
    shell: InteractiveShell, pages: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("plain text")
    (tmp_path / "a.py").write_text("x = 'python text'")
    call(shell, "less", str(tmp_path / "a.txt"))
    call(shell, "more", str(tmp_path / "a.py"))
    assert "plain text" in pages[0]
    assert "python text" in pages[1]


@pytest.mark.parametrize("line", ["", "no_such_file.txt", "no_such_file.py"])
def test_less_says_what_it_cannot_show(
    shell: InteractiveShell, pages: list[str], line: str
) -> None:
    with pytest.raises(UsageError, match=line or "Missing filename"):
        call(shell, "less", line)
    assert pages == []


def test_edit_hands_the_file_to_the_frontend(shell: InteractiveShell, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("x = 1\n")
    call(shell, "edit", f"-n 3 {path}")
    payload_manager: Any = shell.payload_manager
    (payload,) = payload_manager.read_payload()
    assert payload == {"source": "edit_magic", "filename": str(path), "line_number": 3}
    call(shell, "ed", str(path))
    assert payload_manager.read_payload()[-1]["filename"] == str(path)


def test_autosave_sets_the_interval_in_milliseconds(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda **how: shown.append(how["data"]))
    call(shell, "autosave", "5")
    assert shown[0] == {"application/javascript": "IPython.notebook.set_autosave_interval(5000)"}
    assert "every 5 seconds" in capsys.readouterr().out
    with pytest.raises(UsageError, match="requires an integer"):
        call(shell, "autosave", "often")


def test_clear_writes_the_terminal_s_sequence(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    call(shell, "clear")
    assert capsys.readouterr().out == magics.CLEAR_SCREEN


def test_every_magic_has_help(shell: InteractiveShell) -> None:
    names = "connect_info callers subshell restart unstuck autosave clear less more man edit"
    found = shell.magics_manager.magics
    assert [name for name in names.split() if not found["line"][name].__doc__] == []
    assert [name for name in ("thread", "task") if not found["cell"][name].__doc__] == []
    assert "pip" in found["line"]
