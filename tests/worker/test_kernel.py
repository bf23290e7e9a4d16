"""The kernel as a cell sees it: run modes, parents, messages, and what libraries read from it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, cast

import pytest

from plainshell import Record, plain_shell
from unstuck.jobcontext import JobContext, current_job
from unstuck.protocol import SetConcurrencyMode
from unstuck.typing import KernelConcurrencyMode, MsgType, NoValue, RunMode, SocketID
from unstuck_worker.kernel import UnstuckKernel
from unstuck_worker.session import Channel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from unstuck.typing import Job

HEADER = {"msg_id": "m1", "msg_type": "execute_request", "session": "s"}

PIVOT = """
comm_close          blocking blocking blocking blocking
comm_info_request   blocking blocking blocking blocking
comm_msg            task     blocking task     blocking
comm_open           blocking blocking blocking blocking
complete_request    thread   blocking thread   blocking
debug_request       None     blocking task     blocking
execute_request     queue    blocking task     blocking
history_request     thread   blocking thread   blocking
inspect_request     thread   blocking thread   blocking
interrupt_request   task     blocking task     blocking
is_complete_request thread   blocking thread   blocking
kernel_info_request blocking blocking blocking blocking
shutdown_request    None     blocking task     blocking
"""
"""The reference's table: shell default, shell blocking, control default, control blocking."""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell:
        yield shell


@pytest.fixture
def kernel(shell: InteractiveShell, record: Record) -> UnstuckKernel:
    return UnstuckKernel(shell, record.publish, record.send, session="the session")


@pytest.fixture
def running() -> Iterator[JobContext]:
    """Run the test as one job."""
    context = JobContext(7, idents=[b"client"])
    context.message["header"].update(cast("Any", HEADER))
    token = current_job.set(context)
    yield context
    current_job.reset(token)


# --- run modes ------------------------------------------------------------------------------------


def test_the_table_of_run_modes_is_the_reference_s_row_by_row(kernel: UnstuckKernel) -> None:
    columns = kernel.all_concurrency_run_modes()
    assert list(columns) == ["SocketID", "KernelConcurrencyMode", "MsgType", "RunMode"]
    rows = {row[:3]: row[3] for row in zip(*columns.values(), strict=True)}
    assert len(columns["RunMode"]) == len(rows) == 52
    kinds = [(at, mode) for at in ("shell", "control") for mode in ("default", "blocking")]
    for line in PIVOT.split("\n")[1:-1]:
        name, *modes = line.split()
        for (at, mode), wanted in zip(kinds, modes, strict=True):
            found = rows[SocketID(at), KernelConcurrencyMode(mode), MsgType(name)]
            assert found == (None if wanted == "None" else wanted), (at, mode, name)


def test_the_reference_s_pandas_pivot_prints_the_table(kernel: UnstuckKernel) -> None:
    pd = pytest.importorskip("pandas")
    data = pd.DataFrame(kernel.all_concurrency_run_modes())
    data["RunMode"] = data.RunMode.str.replace("##", "")
    columns = ["KernelConcurrencyMode", "SocketID"]
    data = data.pivot(index="MsgType", columns=columns, values="RunMode")
    assert data.shape == (13, 4)
    assert data.loc["comm_msg", ("default", "shell")] == "task"
    # pandas 3 makes NaN of the None that the reference's pandas kept.
    assert pd.isna(data.loc["debug_request", ("default", "shell")])


def test_the_page_s_questions_get_the_page_s_answers(kernel: UnstuckKernel, record: Record) -> None:
    assert repr(kernel.get_run_mode(MsgType.comm_msg)) == "<RunMode.task: 'task'>"
    kernel.concurrency_mode = KernelConcurrencyMode.blocking
    assert str(kernel.concurrency_mode) == "blocking"
    assert kernel.get_run_mode(MsgType.comm_msg).name == "blocking"
    kernel.concurrency_mode = "default"
    assert kernel.get_run_mode(MsgType.comm_msg).name == "task"
    assert record.orders == [
        SetConcurrencyMode(KernelConcurrencyMode.blocking),
        SetConcurrencyMode(KernelConcurrencyMode.default),
    ]


@pytest.mark.parametrize("mode", ["Blocking", "", 3, None])
def test_an_unknown_concurrency_mode_is_refused_and_changes_nothing(
    kernel: UnstuckKernel, record: Record, mode: object
) -> None:
    with pytest.raises(ValueError, match="use one of default, blocking"):
        kernel.concurrency_mode = cast("str", mode)
    assert kernel.concurrency_mode == "default"
    assert record.orders == []


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({"content": {"code": "##thread\nx"}}, RunMode.thread),
        ({"content": {"code": "x"}, "header": {"run_mode": "task"}}, RunMode.task),
        ({"content": {"code": "x"}, "metadata": {"run_mode": "blocking"}}, RunMode.blocking),
        ({"content": {"code": "x", "silent": True}}, RunMode.task),
        ({"content": {"code": "x"}, "metadata": {"tags": ["thread"]}}, RunMode.thread),
        ({"content": {"code": "x"}}, RunMode.queue),
    ],
)
def test_a_job_may_choose_its_mode(
    kernel: UnstuckKernel, message: dict[str, Any], wanted: RunMode
) -> None:
    job = cast("Job", {"msg": message})
    assert kernel.get_run_mode(MsgType.execute_request, job=job) is wanted
    assert kernel.get_run_mode("execute_request", job=job, socket_id="control") is RunMode.task


def test_the_run_mode_question_takes_names_and_refuses_what_is_not_allowed(
    kernel: UnstuckKernel,
) -> None:
    assert kernel.get_run_mode("comm_msg", concurrency_mode="blocking") is RunMode.blocking
    assert kernel.get_run_mode("comm_msg", concurrency_mode=NoValue) is RunMode.task
    with pytest.raises(ValueError, match="not allowed on shell"):
        kernel.get_run_mode(MsgType.debug_request)
    with pytest.raises(ValueError, match="no_such_request"):
        kernel.get_run_mode("no_such_request")


# --- the running request --------------------------------------------------------------------------


def test_the_parent_is_the_running_request(kernel: UnstuckKernel, running: JobContext) -> None:
    for channel in (None, "shell", SocketID.shell):
        assert kernel.get_parent(channel) is running.message
    assert kernel.get_parent("control") == {}
    reading = cast("Any", kernel)
    assert reading._parent_header["header"]["msg_id"] == "m1"
    assert reading._parents["shell"] is running.message
    assert reading._parent_ident["shell"] == [b"client"]


def test_without_a_running_request_the_parent_is_empty(kernel: UnstuckKernel) -> None:
    assert kernel.get_parent() == {}
    assert kernel.get_parent("shell") == {}


# --- messages -------------------------------------------------------------------------------------


def test_the_session_sends_on_iopub_as_libraries_do_it(
    kernel: UnstuckKernel, record: Record, running: JobContext
) -> None:
    content = {"data": {"text/plain": "a"}, "metadata": {}, "transient": {"display_id": "d"}}
    sent = kernel.session.send(
        kernel.iopub_socket,
        "update_display_data",
        content,
        parent=kernel.get_parent(),
        ident=b"topic",
        metadata={"m": 1},
        buffers=[b"raw"],
    )
    (published,) = record.messages
    assert published == ("update_display_data", content, {"m": 1}, b"topic", [b"raw"], HEADER)
    assert sent["header"]["session"] == "the session"
    assert sent["parent_header"] == HEADER
    assert sent["msg_id"] == sent["header"]["msg_id"]


def test_a_made_message_can_be_sent_later(kernel: UnstuckKernel, record: Record) -> None:
    message = kernel.session.msg("display_data", {"data": {}}, parent=HEADER)
    kernel.session.send(kernel.iopub_socket, message, ident=[b"x"])
    assert record.messages[0][:2] == ("display_data", {"data": {}})
    assert record.messages[0].parent == HEADER
    assert record.messages[0].topic == b"x"


def test_message_ids_are_never_used_twice(kernel: UnstuckKernel) -> None:
    assert len({kernel.session.msg("status")["msg_id"] for _ in range(100)}) == 100


def test_a_response_goes_under_the_running_request(
    kernel: UnstuckKernel, record: Record, running: JobContext
) -> None:
    kernel.send_response(kernel.iopub_socket, "stream", {"name": "stdout", "text": "a"})
    kernel.iopub_send("display_data", {"data": {}}, {"m": 1})
    kernel.iopub_send("display_data", {"data": {}}, parent={"header": {"msg_id": "other"}})
    assert [message.parent for message in record.messages] == [HEADER, None, {"msg_id": "other"}]
    assert record.messages[1].metadata == {"m": 1}


@pytest.mark.parametrize("name", ["stdin", "shell", "control"])
def test_a_message_on_another_channel_is_refused_in_words(
    kernel: UnstuckKernel, record: Record, name: str
) -> None:
    with pytest.raises(RuntimeError, match=f"on {name} is the kernel's to send"):
        kernel.session.send(Channel(name), "input_request", {})
    assert record.messages == []


# --- what libraries read --------------------------------------------------------------------------


def test_what_ipykernel_s_kernel_offers_libraries_is_there(kernel: UnstuckKernel) -> None:
    names = """
        banner comm_manager config connection_file control_handlers control_stream debugger
        do_complete do_history do_inspect do_is_complete do_one_iteration eventloop execution_count
        get_parent getpass help_links ident implementation implementation_version int_id
        iopub_socket iopub_thread kernel_info language_info log msg_types parent post_handler_hook
        pre_handler_hook processes profile_dir protocol_version raw_input send_response session
        set_parent shell shell_handlers shell_stream shell_streams stdin_socket user_module user_ns
    """
    missing = [name for name in names.split() if not hasattr(kernel, name)]
    assert missing == []


def test_kernel_info_is_complete_and_true(kernel: UnstuckKernel) -> None:
    info = kernel.kernel_info
    assert info["protocol_version"] == "5.5"
    assert info["implementation"] == "unstuck"
    assert info["banner"].startswith("Python 3")
    assert info["language_info"]["file_extension"] == ".py"
    assert info["supported_features"] == ["kernel subshells"]
    assert all(link["url"].startswith(("http://", "https://")) for link in info["help_links"])


def test_the_execution_count_is_the_shell_s(kernel: UnstuckKernel, shell: InteractiveShell) -> None:
    kernel.execution_count = 99
    assert kernel.execution_count == shell.execution_count != 99


def test_the_do_methods_answer_as_the_requests_do(kernel: UnstuckKernel) -> None:
    assert "import" in kernel.do_complete("impor", 5)["matches"]
    assert kernel.do_inspect("len", 2)["found"] is True
    assert kernel.do_is_complete("a = 1") == {"status": "complete"}
    assert kernel.do_history("tail", output=False, raw=True, n=1)["status"] == "ok"


def test_one_iteration_may_be_called_or_awaited(kernel: UnstuckKernel) -> None:
    kernel.do_one_iteration()
    gc.collect()
    asked = kernel.do_one_iteration()

    async def wait() -> None:
        await asked

    asyncio.run(wait())


def test_input_comes_from_the_patched_builtins(
    kernel: UnstuckKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: f"line for {prompt}")
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"secret for {prompt}")
    assert kernel.raw_input("name") == "line for name"
    assert kernel.getpass("password", stream=None) == "secret for password"


def test_a_placeholder_calls_at_once_what_it_shall_schedule(kernel: UnstuckKernel) -> None:
    called: list[int] = []
    kernel.iopub_thread.schedule(lambda: called.append(1))
    assert called == [1]
    assert "iopub" in repr(kernel.iopub_socket)
