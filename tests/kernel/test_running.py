"""Which kernels run, and which one a person means."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from jupyter_client.connect import write_connection_file

from e2e.kernel_client import START_S
from e2e.spec import OURS, SOURCE_PATH
from kernel.commands import file_of, unstuck, wait_for
from unstuck.control import Control, NoAnswer, is_listening, read_connection
from unstuck.errors import ConfigError
from unstuck.running import RunningKernel, choose, find_kernels, pick
from unstuck.servers import Server, find_servers, find_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.kernel_client import Kernel


def made(kernel_id: str, notebook: str | None = None, *, listening: bool = True) -> RunningKernel:
    return RunningKernel(
        kernel_id=kernel_id,
        connection_file=Path(f"/run/kernel-{kernel_id}.json"),
        connection={},
        listening=listening,
        notebook=None if notebook is None else Path(notebook),
    )


ONE, TWO = made("3f1c-one", "/home/me/a/analysis.ipynb"), made("3f1d-two", "/home/me/b/Notes.ipynb")
STALE = made("3f1c-stale", "/home/me/a/old.ipynb", listening=False)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "3f1c-one",
        "3f1c",
        "kernel-3f1c-one.json",
        "kernel-3f1c-one",
        "analysis.ipynb",
        "analysis",
        "a/analysis",
        "/home/me/a/analysis.ipynb",
    ],
)
def test_a_kernel_is_named_by_its_id_file_or_notebook(name: str) -> None:
    assert pick(name, [ONE, TWO, STALE]) is ONE


@pytest.mark.parametrize("name", ["", "analysis.ip", "ysis.ipynb", "c/analysis", "f1c", "~"])
def test_a_part_from_the_middle_names_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match="no kernel"):
        pick(name, [ONE, TWO])


def test_what_is_there_is_told_with_what_is_not() -> None:
    with pytest.raises(ConfigError, match=r"no kernel 'x': there are 3f1c-one \(/home/me/a/"):
        pick("x", [ONE, STALE])
    with pytest.raises(ConfigError, match="no kernel 'x': no kernel runs"):
        pick("x", [STALE])


def test_a_name_of_two_kernels_is_refused_with_both() -> None:
    with pytest.raises(ConfigError, match=r"'3f1' names 2 kernels: 3f1c-one .*, 3f1d-two"):
        pick("3f1", [ONE, TWO])
    twin = made("9", "/home/you/analysis.ipynb")
    with pytest.raises(ConfigError, match="names 2 kernels"):
        pick("analysis.ipynb", [ONE, twin])
    assert pick("you/analysis.ipynb", [ONE, twin]) is twin


def test_a_whole_id_goes_before_the_beginning_of_another() -> None:
    longer = made("3f1c-one-more")
    assert pick("3f1c-one", [longer, ONE]) is ONE


def test_a_stale_file_is_meant_only_where_nothing_else_is() -> None:
    assert pick("3f1c", [STALE, ONE]) is ONE
    assert pick("3f1c-s", [STALE, ONE]) is STALE


def test_a_kernel_that_is_starting_is_waited_for(
    private_folders: Path, tmp_path: Path, kernel_name: str
) -> None:
    assert kernel_name == OURS
    path = tmp_path / "kernel-early.json"
    write_connection_file(str(path))
    environment = {**os.environ, "PYTHONPATH": SOURCE_PATH}
    command = [sys.executable, "-P", "-m", "unstuck_broker", "-f", str(path)]
    process = subprocess.Popen(command, env=environment)
    try:
        wait_for(lambda: psutil.Process(process.pid).cmdline()[-1:] == [str(path)], "command line")
        assert choose(str(path)).pid == process.pid
    finally:
        process.terminate()
        process.wait(10.0)


# --- what runs ------------------------------------------------------------------------------------


def test_a_kernel_is_found_by_its_process_wherever_its_file_is(kernel: Kernel) -> None:
    found = {str(running.connection_file): running for running in find_kernels()}
    assert found[file_of(kernel)].pid == kernel.pid
    assert found[file_of(kernel)].listening


def test_the_beginning_of_an_id_is_enough(kernel: Kernel) -> None:
    assert choose(Path(file_of(kernel)).stem).pid == kernel.pid


def test_a_client_with_the_file_on_its_command_line_is_no_kernel(kernel: Kernel) -> None:
    code = "import sys; sys.stdin.read()"
    client = subprocess.Popen(
        [sys.executable, "-c", code, "--existing", file_of(kernel)], stdin=subprocess.PIPE
    )
    try:
        assert choose(file_of(kernel)).pid == kernel.pid
    finally:
        client.communicate(timeout=10.0)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"ip": "127.0.0.1"}', "\xff"])
def test_a_file_that_is_no_connection_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="no connection file"):
        read_connection(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_connection(tmp_path)


def test_nobody_listens_at_a_port_that_is_none() -> None:
    for port in (0, -1, 10**9, "x"):
        connection = {"ip": "127.0.0.1", "control_port": port, "transport": "tcp"}
        assert not is_listening(connection)
    assert not is_listening({"ip": "/no/such/k", "control_port": 1, "transport": "ipc"})


def test_a_kernel_with_another_key_gives_no_answer(kernel: Kernel) -> None:
    connection = {**read_connection(Path(file_of(kernel))), "key": secrets.token_hex(16)}
    with Control(connection) as control, pytest.raises(NoAnswer, match=r"within 0\.3 s"):
        control.ask("kernel_info_request", deadline_s=0.3)


def test_answers_may_be_taken_in_another_order(kernel: Kernel) -> None:
    with closing(Control(read_connection(Path(file_of(kernel))))) as control:
        first = control.send("kernel_info_request")
        second = control.send("connect_request")
        ports = control.answer(second, "connect_request", deadline_s=10.0)
        info = control.answer(first, "kernel_info_request", deadline_s=10.0)
    assert ports["control_port"] == kernel.manager.control_port
    assert info["implementation"] == "unstuck"


# --- servers --------------------------------------------------------------------------------------


def test_what_is_no_file_of_a_living_server_is_passed_over(tmp_path: Path) -> None:
    here = {"url": "http://127.0.0.1:1/x", "token": "t", "pid": os.getpid(), "root_dir": "/r"}
    gone = {**here, "pid": _free_pid()}
    socket = {**here, "url": "http+unix://%2Frun%2Fx"}
    for number, content in enumerate([json.dumps(here), json.dumps(gone), json.dumps(socket), "["]):
        (tmp_path / f"jpserver-{number}.json").write_text(content)
    assert find_servers(tmp_path) == [Server("http://127.0.0.1:1/x/", "t", Path("/r"))]
    assert find_sessions(tmp_path) == {}


def _free_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(30.0)
    return ended.pid


@pytest.fixture(scope="module")
def server(
    kernel_name: str, private_folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Run a Jupyter server with our kernel."""
    pytest.importorskip("jupyter_server")
    assert kernel_name == OURS
    root = tmp_path_factory.mktemp("server")
    log = (root / "server.log").open("wb")
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--port=0", "--allow-root"]
    options = [f"--ServerApp.root_dir={root}", "--ServerApp.log_level=WARN"]
    process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    file = private_folders / "runtime" / f"jpserver-{process.pid}.json"
    try:
        wait_for(lambda: _serves(private_folders / "runtime"), "server", deadline_s=START_S * 2)
        [found] = find_servers(private_folders / "runtime")
        yield found
    finally:
        process.terminate()
        process.wait(30.0)
        log.close()
        file.unlink(missing_ok=True)


def _serves(runtime: Path) -> bool:
    try:
        return [server.ask("api/sessions") for server in find_servers(runtime)] == [[]]
    except OSError:
        return False


def open_notebook(server: Server, name: str) -> str:
    """Start a kernel for a notebook, as JupyterLab does; give its id."""
    session: dict[str, Any] = {
        "path": name,
        "name": name,
        "type": "notebook",
        "kernel": {"name": OURS},
    }
    answer: Any = server.ask("api/sessions", method="POST", content=session, deadline_s=START_S)
    return str(answer["kernel"]["id"])


def test_a_kernel_of_a_server_is_named_by_its_notebook_and_ended_by_the_server(
    server: Server,
) -> None:
    kernel_id = open_notebook(server, "deep.ipynb")
    running = choose("deep.ipynb")
    assert running.kernel_id == kernel_id
    assert running.notebook == server.root / "deep.ipynb"
    pid = running.pid or 0
    [record] = json.loads(unstuck("ps", "--json", "deep").output)
    assert (record["pid"], record["notebook"]) == (pid, str(server.root / "deep.ipynb"))
    result = unstuck("kill", "deep.ipynb")
    assert result.exit_code == 0, result.output
    assert not psutil.pid_exists(pid)
    assert server.ask("api/kernels") == []


def test_a_kernel_that_is_killed_at_once_is_not_started_again_by_its_server(
    server: Server,
) -> None:
    open_notebook(server, "now.ipynb")
    pid = choose("now").pid or 0
    result = unstuck("kill", "now", "--now")
    assert result.exit_code == 0, result.output
    wait_for(lambda: not psutil.pid_exists(pid), "end of the process")
    assert server.ask("api/kernels") == []
    start_s = time.monotonic()
    with pytest.raises(ConfigError, match="no kernel 'now'"):
        choose("now")
    assert time.monotonic() - start_s < 10.0
