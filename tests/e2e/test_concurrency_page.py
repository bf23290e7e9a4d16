"""The reference's page about concurrency: a notebook written for it gives the same results here.

The notebook imports ``async_kernel``; where that is installed, it is hidden from the kernel under
test.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Shared
    from e2e.kernel_client import Kernel
    from e2e.result import Result

pytestmark = ours

HIDE = """
import sys
class WithoutAsyncKernel:
    def __init__(self, inner):
        self.inner = inner
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "async_kernel":
            return None
        return self.inner.find_spec(name, path, target)
is_ours = lambda finder: type(finder).__name__ == "FacadeFinder"
sys.meta_path[:] = [f if is_ours(f) else WithoutAsyncKernel(f) for f in sys.meta_path]
"""
SETUP = """
from async_kernel import utils
from async_kernel.typing import KernelConcurrencyMode, MsgType, RunMode
kernel = utils.get_kernel()
"""
DEMO = """
async def demo():
    import threading
    import anyio
    from async_kernel import Caller, utils
    from ipywidgets import Button

    print("Run mode:", utils.get_job()["run_mode"])
    print(f"Thread name: '{threading.current_thread().name}'")
    button = Button(description="Finish")
    event = anyio.Event()
    caller = Caller()
    button.on_click(lambda _: caller.call_direct(event.set))
    display(button)
    await event.wait()
    button.close()
    print(f"Finished ... thread name: '{threading.current_thread().name}'")
    return "Finished"
"""
BUTTON = "Button(description='Finish', style=ButtonStyle())"
VIEW = "application/vnd.jupyter.widget-view+json"
PIVOT = """
import pandas as pd
data = pd.DataFrame(kernel.all_concurrency_run_modes())
data["RunMode"] = data.RunMode.str.replace("##", "")
data = data.pivot(
    index="MsgType", columns=["KernelConcurrencyMode", "SocketID"], values="RunMode"
)
display(data)
"""
TABLE = """
KernelConcurrencyMode | default | blocking | default | blocking
SocketID | shell | shell | control | control
MsgType
comm_close | blocking | blocking | blocking | blocking
comm_info_request | blocking | blocking | blocking | blocking
comm_msg | task | blocking | task | blocking
comm_open | blocking | blocking | blocking | blocking
complete_request | thread | blocking | thread | blocking
debug_request | None | blocking | task | blocking
execute_request | queue | blocking | task | blocking
history_request | thread | blocking | thread | blocking
inspect_request | thread | blocking | thread | blocking
interrupt_request | task | blocking | task | blocking
is_complete_request | thread | blocking | thread | blocking
kernel_info_request | blocking | blocking | blocking | blocking
shutdown_request | None | blocking | task | blocking
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]


@pytest.fixture
def page(shared: Shared) -> Iterator[Kernel]:
    """Give the module's kernel, in which a notebook of the page has begun."""
    kernel = shared.take()
    if kernel.evaluate("'WithoutAsyncKernel' in globals()") == "False":
        kernel.run_ok(HIDE)
        kernel.run_ok(SETUP)
        kernel.run_ok(DEMO)
    yield kernel
    assert kernel.is_alive, f"the kernel died:\n{kernel.log_text}"


# --- what the kernel says of itself ---------------------------------------------------------------


def test_the_run_mode_of_a_comm_message_is_shown_as_on_the_page(page: Kernel) -> None:
    assert page.run_ok("kernel.get_run_mode(MsgType.comm_msg)").value == "<RunMode.task: 'task'>"


def test_the_concurrency_mode_changes_the_answer_and_back(page: Kernel) -> None:
    code = (
        "for mode in (KernelConcurrencyMode.blocking, KernelConcurrencyMode.default):\n"
        "    kernel.concurrency_mode = mode\n"
        '    print(f"""\n'
        "kernel.concurrency_mode: {kernel.concurrency_mode!s}\n"
        'kernel.get_run_mode: {kernel.get_run_mode(MsgType.comm_msg).name}""")'
    )
    assert page.run_ok(code).stdout.split("\n\n") == [
        "\nkernel.concurrency_mode: blocking\nkernel.get_run_mode: blocking",
        "kernel.concurrency_mode: default\nkernel.get_run_mode: task\n",
    ]


@pytest.mark.parametrize("infers_text", [False, True])
def test_the_pivot_table_is_that_of_the_page(page: Kernel, infers_text: bool) -> None:
    # pandas 3 has a type for text, in which None is NaN; before, the column holds objects.
    page.run_ok(f"import pandas\npandas.set_option('future.infer_string', {infers_text})")
    (shown,) = page.run_ok(PIVOT, deadline_s=60).displays
    missing = "NaN" if infers_text else "None"
    rows = [[missing if cell == "None" else cell for cell in row] for row in ROWS]
    assert [line.split() for line in shown["text/plain"].splitlines()] == rows
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", shown["text/html"])
    assert [cell for cell in cells if cell] == [cell for row in rows for cell in row]


def test_without_pandas_the_table_is_printed_as_a_dict(page: Kernel) -> None:
    printed = page.run_ok("print(kernel.all_concurrency_run_modes())").stdout
    assert printed.startswith("{'SocketID': (<SocketID.shell: 'shell'>, ")
    assert "'RunMode': (<RunMode.blocking: 'blocking'>, " in printed


# --- cells that wait for their buttons ------------------------------------------------------------


def _button_of(result: Result) -> str:
    """Name the comm of the button that a cell shows."""
    (shown,) = result.displays
    assert shown["text/plain"] == BUTTON
    return str(shown[VIEW]["model_id"])


def _press(kernel: Kernel, result: Result) -> None:
    """Press the button of a cell, as the frontend tells it."""
    data = {"method": "custom", "content": {"event": "click"}}
    kernel.finish(kernel.send("comm_msg", {"comm_id": _button_of(result), "data": data}))


def _start(kernel: Kernel, code: str, tag: str = "") -> Result:
    result = kernel.execute(code, metadata={"tags": [tag]} if tag else {})
    _wait_for_button(kernel, result)
    return result


def _wait_for_button(kernel: Kernel, result: Result) -> None:
    kernel.wait(lambda: bool(result.displays), "the button")


def _threads(result: Result, mode: str) -> str:
    """Read the thread of a demo cell that has ended in this mode; it begins and ends there."""
    said = rf"Run mode: {mode}\nThread name: '(.*)'\nFinished \.\.\. thread name: '(.*)'\n"
    match = re.fullmatch(said, result.stdout)
    assert match, result.stdout
    assert match[1] == match[2]
    assert result.value == "'Finished'"
    return match[1]


QUEUE = "await demo()"
DIRECTIVE = "##queue\n# It can be started while another is busy.\nawait demo()"
LITERAL = "RunMode.task  # noqa: B018  # The literal values can be used, too.\nawait demo()"
BY_TAG = "# This cell has a tag.\nawait demo()"


def test_cells_as_queue_task_and_thread_end_when_their_buttons_are_pressed_in_reverse_order(
    page: Kernel,
) -> None:
    cells = [_start(page, QUEUE), _start(page, LITERAL), _start(page, BY_TAG, "thread")]
    for at in reversed(range(3)):
        assert [cell.is_complete for cell in cells] == [other > at for other in range(3)]
        _press(page, cells[at])
        page.finish(cells[at])
    assert _threads(cells[0], "##queue") == "MainThread"
    assert _threads(cells[1], "##task") == "MainThread"
    assert re.fullmatch(r"Thread-\d+ \(anyio_run_caller\)", _threads(cells[2], "##thread"))


def test_a_second_queue_cell_waits_for_the_first(page: Kernel) -> None:
    first = _start(page, QUEUE)
    second = page.execute(DIRECTIVE)
    assert page.run_ok("##task\n1").value == "1"
    assert second.kinds == []
    _press(page, first)
    page.finish(first)
    _wait_for_button(page, second)
    _press(page, second)
    assert _threads(page.finish(second), "##queue") == "MainThread"


def test_any_number_of_tasks_and_threads_wait_at_once(page: Kernel) -> None:
    modes = ["##task", "##thread"] * 20
    cells = [page.execute(f"{mode}\nawait demo()") for mode in modes]
    for cell in cells:
        _wait_for_button(page, cell)
    for cell, mode in zip(cells, modes, strict=True):
        _press(page, cell)
        _threads(page.finish(cell), mode)


@pytest.mark.parametrize("busy", ["import time; time.sleep(30)", "while True: pass"])
def test_a_thread_cell_starts_and_prints_while_the_main_thread_is_busy(
    page: Kernel, busy: str
) -> None:
    cell = page.execute(f"print('busy')\n{busy}")
    page.wait_for_text(cell, "busy")
    text = page.run_ok(
        "##thread\nimport threading\nprint(utils.get_job()['run_mode'], "
        "threading.current_thread().name)"
    ).stdout
    assert re.fullmatch(r"##thread Thread-\d+ \(anyio_run_caller\)\n", text)
    assert not cell.is_complete
    page.interrupt()
    assert page.finish(cell).content["ename"] == "KeyboardInterrupt"


# --- %callers -------------------------------------------------------------------------------------


def test_callers_are_shown_as_on_the_page(page: Kernel) -> None:
    beside = _start(page, BY_TAG, "thread")
    shown = page.run_ok("##thread\n%callers").stdout
    header, rule, *rows = shown.splitlines()
    assert header.split() == ["Running", "Protected", "Name"]
    assert rule == "─" * 70
    assert rows[0].split("\t") == ["   ✓", "   🔐", "", "MainThread", ""]
    assert all(row.split()[0] == "✓" for row in rows)
    here = [row for row in rows if "← current thread" in row]
    assert len(here) == 1
    assert re.search(r"Thread-\d+ \(anyio_run_caller\)\t← current thread$", here[0])
    other = re.findall(r"Thread name: '(.*)'", beside.stdout)
    assert [row for row in rows if row.split("\t")[3] in other]
    _press(page, beside)
    page.finish(beside)
