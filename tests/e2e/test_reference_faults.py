"""Faults that were measured in the reference: each was designed away, and stays away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

pytestmark = ours

MODES = ["queue", "task", "thread", "blocking"]
BURST = 100


def test_many_questions_and_thread_cells_at_once_are_all_answered(kernel: Kernel) -> None:
    completion = {"code": "pri", "cursor_pos": 3}
    kernel.request("complete_request", completion)  # The first one loads what it needs.
    sent = [
        (
            kernel.execute(f"##thread\n{number}"),
            kernel.send("is_complete_request", {"code": "for"}),
        )
        for number in range(BURST)
    ]
    completions = [kernel.send("complete_request", completion) for _ in range(BURST // 10)]
    for number, (cell, question) in enumerate(sent):
        assert kernel.finish(cell).value == str(number)
        assert kernel.finish(question).content["status"] == "invalid"
    for result in completions:
        assert "print" in kernel.finish(result).content["matches"]


def test_a_blocking_cell_leaks_nothing_into_later_requests(kernel: Kernel) -> None:
    kernel.run_ok("from unstuck import utils")
    kernel.run_ok("##blocking\nutils.get_execution_count()")
    last = kernel.run_ok("utils.get_execution_count()")
    assert last.value == str(last.content["execution_count"])
    silent = kernel.evaluate("(utils.get_job()['run_mode'].name, utils.get_execution_count())")
    assert silent == f"('task', {last.value})"


@pytest.mark.parametrize("mode", ["queue", "task", "blocking"])
@pytest.mark.parametrize("wait", ["time.sleep(60)", "await asyncio.sleep(60)", "while True: pass"])
def test_a_timeout_is_an_error_in_every_mode_of_the_main_thread(
    kernel: Kernel, mode: str, wait: str
) -> None:
    kernel.run_ok("import asyncio, time\nkept = True")
    result = kernel.run(f"##{mode}\n{wait}", metadata={"timeout": 0.3})
    assert result.status == "error"
    assert result.error["ename"] == result.content["ename"] == "TimeoutError"
    assert kernel.evaluate("kept") == "True"


@pytest.mark.parametrize("mode", MODES)
def test_an_interrupt_inside_a_function_is_a_keyboard_interrupt_in_every_mode(
    kernel: Kernel, mode: str
) -> None:
    kernel.run_ok("def loop():\n    print('in the loop')\n    while True: pass")
    cell = kernel.execute(f"##{mode}\nloop()")
    kernel.wait_for_text(cell, "in the loop")
    kernel.interrupt()
    result = kernel.finish(cell)
    assert result.error["ename"] == result.content["ename"] == "KeyboardInterrupt"


def test_ten_thousand_prints_arrive_whole(kernel: Kernel) -> None:
    result = kernel.run_ok("for number in range(10_000): print(number, 'of 10,000')")
    assert result.stdout == "".join(f"{number} of 10,000\n" for number in range(10_000))


def test_a_thread_cell_is_answered_while_a_cell_asks_for_input(kernel: Kernel) -> None:
    asking = kernel.execute("input('name? ')", allow_stdin=True)
    kernel.wait(lambda: bool(kernel.input_requests), "the question")
    assert kernel.run_ok("##thread\n6 * 7").value == "42"
    kernel.answer("quince")
    assert kernel.finish(asking).value == "'quince'"


def test_a_message_that_is_shown_instead_of_an_error_is_found(kernel: Kernel) -> None:
    metadata = {"tags": ["suppress-error"], "suppress-error-message": "never mind"}
    result = kernel.run("1 / 0", metadata=metadata)
    assert "never mind" in result.stdout + result.stderr
    assert result.of("error") == []


@pytest.mark.parametrize("mode", MODES)
def test_code_knows_the_number_of_its_cell_wherever_it_runs(kernel: Kernel, mode: str) -> None:
    result = kernel.run_ok(
        f"##{mode}\nimport asyncio, threading\nfrom unstuck import Caller, utils\nnumbers = []\n"
        "def note(): numbers.append(utils.get_execution_count())\n"
        "note()\nthread = threading.Thread(target=note)\nthread.start()\nthread.join()\n"
        "await Caller().call_soon(note)\nawait Caller.to_thread(note)\n"
        "await asyncio.to_thread(note)\nget_ipython().run_cell('note()')\nnumbers"
    )
    number = result.content["execution_count"]
    assert result.value == str([number] * 6)
