"""Requests about the kernel itself: info, connection, usage, interrupt, shutdown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import zmq
from jupyter_client.session import Session

from e2e.kernel_client import WAIT_S
from e2e.spec import ours

if TYPE_CHECKING:
    from pathlib import Path

    from jupyter_client.manager import KernelManager

    from conftest import StartKernel
    from e2e.kernel_client import Kernel


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_kernel_info_names_everything(kernel: Kernel, channel: str) -> None:
    content = kernel.request("kernel_info_request", channel=channel).content
    assert content["protocol_version"].startswith("5.")
    assert content["implementation"]
    assert content["implementation_version"]
    assert "Python" in content["banner"]
    language = content["language_info"]
    assert language["name"] == "python"
    assert language["mimetype"] == "text/x-python"
    assert language["pygments_lexer"] == "ipython3"
    assert language["nbconvert_exporter"] == "python"
    assert language["codemirror_mode"] == {"name": "ipython", "version": 3}
    assert language["version"].startswith("3.")
    assert all(link["url"].startswith("http") for link in content["help_links"])
    assert "kernel subshells" in content["supported_features"]


def test_connect_gives_the_ports(kernel: Kernel) -> None:
    content = kernel.request("connect_request").content
    for channel in ("shell", "iopub", "stdin", "control", "hb"):
        port = getattr(kernel.manager, f"{channel}_port")
        assert content[f"{channel}_port"] == port


def test_usage_tells_cpu_and_memory_while_a_cell_is_busy(kernel: Kernel) -> None:
    busy = kernel.execute("import time; time.sleep(1.0)")
    content = kernel.request("usage_request", channel="control").content
    assert not busy.is_complete
    assert content["hostname"]
    assert content["kernel_cpu"] >= 0
    assert content["kernel_memory"] > 10_000_000
    assert content["pid"] in [process.pid for process in kernel.tree]
    assert content["cpu_count"] >= 1
    assert content["host_virtual_memory"]["total"] > content["kernel_memory"]
    kernel.finish(busy)


@ours
def test_control_answers_while_a_cell_holds_the_gil(kernel: Kernel) -> None:
    busy = kernel.execute("import re; re.match(r'(a+)+$', 'a' * 25 + 'b')")
    kernel.wait(lambda: "execute_input" in busy.kinds, "start of the cell")
    kernel.request("kernel_info_request", channel="control")
    assert not busy.is_complete
    kernel.finish(busy)


@ours
def test_rapid_requests_have_their_states_once_in_order_and_the_cell_stays_busy(
    kernel: Kernel,
) -> None:
    client = kernel.client
    cell = client.execute("import time\nfor n in range(40): print(n); time.sleep(0.005)")
    asked: list[str] = []
    for _ in range(300):
        message = client.session.msg("kernel_info_request")
        client.control_channel.send(message)
        answer = client.get_control_msg(timeout=WAIT_S)
        assert answer["parent_header"]["msg_id"] == message["header"]["msg_id"]
        asked.append(answer["parent_header"]["msg_id"])
    states: list[tuple[str, str]] = []
    while (cell, "idle") not in states or (asked[-1], "idle") not in states:
        heard = client.get_iopub_msg(timeout=WAIT_S)
        if heard["msg_type"] == "status":
            parent = heard["parent_header"]["msg_id"]
            states.append((parent, heard["content"]["execution_state"]))
    for msg_id in (cell, *asked):
        assert [state for parent, state in states if parent == msg_id] == ["busy", "idle"]
    first = [parent for parent, state in states if state == "busy" and parent in asked]
    assert first == asked
    # Whoever hears the last state knows whether the cell runs.
    began, ended = states.index((cell, "busy")), states.index((cell, "idle"))
    during = [parent for parent, _ in states[began:ended]]
    assert states[ended - 1][1] == "busy" or during[-1] == cell
    assert states[-1][1] == "idle"


def test_an_interrupt_ends_a_busy_cell(kernel: Kernel) -> None:
    busy = kernel.execute("import time\nprint('on')\ntime.sleep(60)")
    kernel.wait_for_text(busy, "on")
    kernel.interrupt()
    result = kernel.finish(busy)
    assert result.content["ename"] == "KeyboardInterrupt"
    assert result.error["ename"] == "KeyboardInterrupt"
    assert kernel.run_ok("'alive'").value == "'alive'"


@ours
def test_an_interrupt_ends_an_awaiting_cell(kernel: Kernel) -> None:
    busy = kernel.execute("import asyncio\nprint('on')\nawait asyncio.sleep(60)")
    kernel.wait_for_text(busy, "on")
    kernel.interrupt()
    assert kernel.finish(busy).content["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert kernel.run_ok("'alive'").value == "'alive'"


@ours
def test_an_interrupt_aborts_the_cells_that_wait(kernel: Kernel) -> None:
    busy = kernel.execute("import time\nprint('on')\ntime.sleep(60)")
    waiting = kernel.execute("'waiting'")
    kernel.wait_for_text(busy, "on")
    kernel.interrupt()
    assert kernel.finish(busy).content["ename"] == "KeyboardInterrupt"
    assert kernel.finish(waiting).status == "aborted"


def test_an_interrupt_of_nothing_does_nothing(kernel: Kernel) -> None:
    kernel.run_ok("before = 1")
    assert kernel.interrupt().status == "ok"
    assert kernel.run_ok("before").value == "1"


@pytest.mark.parametrize("restart", [True, False])
def test_a_shutdown_request_is_answered_and_ends_the_process(
    fresh_kernel: Kernel, *, restart: bool
) -> None:
    tree = fresh_kernel.tree
    result = fresh_kernel.send("shutdown_request", {"restart": restart}, channel="control")
    fresh_kernel.wait(lambda: bool(result.replies), "a shutdown reply")
    assert result.content == {"status": "ok", "restart": restart}
    end = time.monotonic() + 10
    while any(process.is_running() and process.status() != "zombie" for process in tree):
        assert time.monotonic() < end, f"still running: {tree}"
        fresh_kernel.forget()


@ours
def test_a_shutdown_request_ends_a_busy_kernel_and_answers_the_cell(fresh_kernel: Kernel) -> None:
    busy = fresh_kernel.execute("import time; time.sleep(600)")
    fresh_kernel.wait(lambda: "execute_input" in busy.kinds, "start of the cell")
    fresh_kernel.send("shutdown_request", {"restart": False}, channel="control")
    fresh_kernel.wait(lambda: busy.is_complete, "an answer to the cell")
    fresh_kernel.wait(lambda: not fresh_kernel.is_alive, "the end of the process", deadline_s=10)


@ours
@pytest.mark.parametrize("channel", ["shell", "control"])
def test_an_unknown_message_type_gets_an_error_reply(kernel: Kernel, channel: str) -> None:
    result = kernel.request("no_such_request", {"a": 1}, channel=channel)
    assert result.status == "error"
    assert "no_such_request" in result.content["evalue"]


@ours
def test_a_shutdown_request_on_shell_is_refused(kernel: Kernel) -> None:
    result = kernel.request("shutdown_request", {"restart": False})
    assert result.status == "error"
    assert "control" in result.content["evalue"]


@ours
def test_a_new_subscriber_is_welcomed(kernel: Kernel) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.subscribe(b"")
        socket.connect(f"tcp://127.0.0.1:{kernel.manager.iopub_port}")
        assert socket.poll(10_000), "no welcome"
        session = Session(key=kernel.session.key)
        _, signed = session.feed_identities(socket.recv_multipart())
        message = session.deserialize(signed)
    assert message["header"]["msg_type"] == "iopub_welcome"
    assert message["content"] == {"subscription": ""}


def test_the_heartbeat_echoes(kernel: Kernel) -> None:
    busy = kernel.execute("import time; time.sleep(0.5)")
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(f"tcp://127.0.0.1:{kernel.manager.hb_port}")
        for beat in (b"one", b"two"):
            socket.send(beat)
            assert socket.poll(10_000), "no heartbeat"
            assert socket.recv() == beat
    kernel.finish(busy)


def test_headers_name_the_request_and_the_protocol(kernel: Kernel) -> None:
    result = kernel.run_ok("print(1)\n2")
    sessions = {m["header"]["session"] for m in (result.reply, *result.iopub)}
    assert len(sessions) == 1
    ids = [m["header"]["msg_id"] for m in (result.reply, *result.iopub)]
    assert len(set(ids)) == len(ids)
    for message in (result.reply, *result.iopub):
        assert message["header"]["version"].startswith("5.")
        assert message["header"]["username"]
        assert message["parent_header"]["msg_id"] == result.msg_id
        assert message["parent_header"]["date"] == result.header["date"]


def test_an_ipc_kernel_answers(start_kernel: StartKernel, tmp_path: Path) -> None:
    def use_ipc(manager: KernelManager) -> None:
        manager.transport = "ipc"
        manager.ip = str(tmp_path / "ipc")

    kernel = start_kernel(prepare=use_ipc)
    assert kernel.run_ok("1 + 1").value == "2"
    assert (tmp_path / "ipc-1").is_socket()


@pytest.mark.parametrize("scheme", ["hmac-md5", "hmac-sha512", "hmac-blake2b"])
def test_other_signature_schemes_are_understood(start_kernel: StartKernel, scheme: str) -> None:
    kernel = start_kernel(
        prepare=lambda manager: setattr(manager.session, "signature_scheme", scheme)
    )
    assert kernel.run_ok("1 + 1").value == "2"


def test_an_empty_key_means_no_signatures(start_kernel: StartKernel) -> None:
    kernel = start_kernel(prepare=lambda manager: setattr(manager.session, "key", b""))
    assert kernel.run_ok("1 + 1").value == "2"
