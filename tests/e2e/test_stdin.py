"""input() and getpass() ask the frontend that sent the cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_client.blocking.client import BlockingKernelClient

from e2e.kernel_client import WAIT_S
from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel


def test_input_asks_and_gets_the_answer(kernel: Kernel) -> None:
    asking = kernel.execute("answer = input('name? ')\nanswer", allow_stdin=True)
    request = kernel.answer("Ada é 🐍")
    assert request["header"]["msg_type"] == "input_request"
    assert request["content"] == {"prompt": "name? ", "password": False}
    assert request["parent_header"]["msg_id"] == asking.msg_id
    assert kernel.finish(asking).value == "'Ada é 🐍'"


def test_getpass_asks_for_a_password(kernel: Kernel) -> None:
    asking = kernel.execute("import getpass\ngetpass.getpass('secret? ')", allow_stdin=True)
    request = kernel.answer("xyz")
    assert request["content"] == {"prompt": "secret? ", "password": True}
    assert kernel.finish(asking).value == "'xyz'"


def test_text_printed_before_the_question_is_there_when_it_comes(kernel: Kernel) -> None:
    asking = kernel.execute("print('look here', end='')\ninput()", allow_stdin=True)
    kernel.wait(lambda: bool(kernel.input_requests), "an input request")
    kernel.wait_for_text(asking, "look here")
    kernel.answer("")
    assert kernel.finish(asking).value == "''"


def test_input_without_stdin_fails_at_once(kernel: Kernel) -> None:
    result = kernel.run("input('?')", allow_stdin=False)
    assert result.content["ename"] == "StdinNotImplementedError"


def test_several_questions_come_one_by_one(kernel: Kernel) -> None:
    asking = kernel.execute("[input(str(n)) for n in range(3)]", allow_stdin=True)
    for number in range(3):
        assert kernel.answer(f"answer {number}")["content"]["prompt"] == str(number)
    assert kernel.finish(asking).value == "['answer 0', 'answer 1', 'answer 2']"


def test_an_interrupt_ends_the_question(kernel: Kernel) -> None:
    asking = kernel.execute("input('never answered')", allow_stdin=True)
    kernel.wait(lambda: bool(kernel.input_requests), "an input request")
    kernel.interrupt()
    assert kernel.finish(asking).content["ename"] == "KeyboardInterrupt"
    assert kernel.run_ok("'alive'").value == "'alive'"


@ours
def test_a_client_that_connects_stdin_late_is_asked_all_the_same(kernel: Kernel) -> None:
    client = BlockingKernelClient(connection_file=kernel.manager.connection_file)
    client.load_connection_file()
    client.start_channels(stdin=False, hb=False)
    try:
        client.execute("input('late? ')", allow_stdin=True)
        while client.get_iopub_msg(timeout=WAIT_S)["msg_type"] != "execute_input":
            pass
        client.stdin_channel.start()
        assert client.get_stdin_msg(timeout=WAIT_S)["content"]["prompt"] == "late? "
        client.input("here")
        assert client.get_shell_msg(timeout=WAIT_S)["content"]["status"] == "ok"
    finally:
        client.stop_channels()


@ours
def test_a_late_answer_is_not_taken_for_the_next_question(kernel: Kernel) -> None:
    asking = kernel.execute("input('first')", allow_stdin=True)
    kernel.wait(lambda: bool(kernel.input_requests), "an input request")
    kernel.interrupt()
    kernel.finish(asking)
    kernel.answer("late")
    again = kernel.execute("input('second')", allow_stdin=True)
    kernel.wait(lambda: bool(kernel.input_requests), "a second input request")
    kernel.answer("in time")
    assert kernel.finish(again).value == "'in time'"


@ours
def test_control_and_introspection_work_while_a_cell_asks(kernel: Kernel) -> None:
    asking = kernel.execute("input('?')", allow_stdin=True)
    kernel.wait(lambda: bool(kernel.input_requests), "an input request")
    content = {"code": "prin", "cursor_pos": 4}
    assert "print" in kernel.request("complete_request", content).content["matches"]
    kernel.request("kernel_info_request", channel="control")
    kernel.answer("done")
    assert kernel.finish(asking).value == "'done'"


@ours
def test_a_cell_in_a_thread_may_ask(kernel: Kernel) -> None:
    asking = kernel.execute("##thread\ninput('from a thread')", allow_stdin=True)
    assert kernel.answer("yes")["content"]["prompt"] == "from a thread"
    assert kernel.finish(asking).value == "'yes'"


def test_pdb_works_at_the_prompt(kernel: Kernel) -> None:
    debugging = kernel.execute(
        "import pdb\ndef f():\n    inner = 41\n    pdb.set_trace()\n    return inner + 1\nf()",
        allow_stdin=True,
    )
    assert "pdb" in kernel.answer("p inner")["content"]["prompt"].lower()
    kernel.wait_for_text(debugging, "41")
    kernel.answer("c")
    assert kernel.finish(debugging).value == "42"


def test_the_debug_magic_opens_the_last_error(kernel: Kernel) -> None:
    kernel.run("def broken():\n    local_value = 'look at me'\n    1/0\nbroken()")
    debugging = kernel.execute("%debug", allow_stdin=True)
    kernel.answer("p local_value")
    kernel.wait_for_text(debugging, "look at me")
    kernel.answer("q")
    assert kernel.finish(debugging).status == "ok"
