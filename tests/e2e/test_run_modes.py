"""Run modes: cells beside the queue, and the four ways to ask for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

pytestmark = ours

ASK: dict[str, dict[str, Any]] = {
    "first line": {"code": "##{mode}\n"},
    "first line, as an attribute": {"code": "RunMode.{mode}  # noqa\n"},
    "header": {"header": {"run_mode": "{mode}"}},
    "metadata": {"metadata": {"run_mode": "{mode}"}},
    "our metadata": {"metadata": {"unstuck": {"run_mode": "{mode}"}}},
    "tag": {"metadata": {"tags": ["other", "{mode}"]}},
}


def _fill(value: Any, mode: str) -> Any:  # noqa: ANN401 - JSON
    """Put the mode's name into every string of a JSON value."""
    if isinstance(value, str):
        return value.replace("{mode}", mode)
    if isinstance(value, dict):
        return {key: _fill(item, mode) for key, item in value.items()}
    return [_fill(item, mode) for item in value]


@pytest.mark.parametrize("way", ASK)
@pytest.mark.parametrize("mode", ["queue", "task", "thread", "blocking"])
def test_every_way_to_ask_for_a_mode_works(kernel: Kernel, way: str, mode: str) -> None:
    ask = _fill(ASK[way], mode)
    code = (
        ask.pop("code", "")
        + "from unstuck import utils\nprint('Run mode:', utils.get_job()['run_mode'])"
    )
    kernel.run_ok("from unstuck import RunMode")
    assert kernel.run_ok(code, **ask).stdout == f"Run mode: ##{mode}\n"


def test_a_task_runs_beside_an_awaiting_cell(kernel: Kernel) -> None:
    kernel.run_ok("import asyncio\nevent = asyncio.Event()")
    waiting = kernel.execute("print('waiting')\nawait event.wait()\n'released'")
    kernel.wait_for_text(waiting, "waiting")
    assert kernel.run_ok("##task\nevent.set()\nprint('from the task')").stdout == "from the task\n"
    assert kernel.finish(waiting).value == "'released'"


def test_a_thread_cell_runs_beside_a_blocking_cell(kernel: Kernel) -> None:
    kernel.run_ok("import time\ngo = False")
    busy = kernel.execute("print('on')\nwhile not go: time.sleep(0.01)\n'done'")
    kernel.wait_for_text(busy, "on")
    assert (
        kernel.run_ok("##thread\ngo = True\nprint('from the thread')").stdout == "from the thread\n"
    )
    assert kernel.finish(busy).value == "'done'"


def test_a_thread_cell_may_await(kernel: Kernel) -> None:
    result = kernel.run_ok("##thread\nimport asyncio\nawait asyncio.sleep(0.01)\n'awaited'")
    assert result.value == "'awaited'"


def test_a_thread_cell_may_name_its_thread_and_backend(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "##thread name=my-thread backend=trio\nimport threading, trio\nawait trio.sleep(0.01)\n"
        "threading.current_thread().name"
    )
    assert result.value == "'my-thread'"


def test_a_directive_of_one_hash_has_the_same_options_once_it_is_switched_on(
    fresh_kernel: Kernel,
) -> None:
    fresh_kernel.run_ok("import threading\n%unstuck hash_directive true")
    result = fresh_kernel.run_ok("# thread name='My thread'\nthreading.current_thread().name")
    assert result.value == "'My thread'"
    result = fresh_kernel.run(
        "# thread backend=trio\nimport sniffio; sniffio.current_async_library()"
    )
    assert result.value == "'trio'"


def test_an_option_that_does_not_exist_is_an_error_reply(kernel: Kernel) -> None:
    result = kernel.run("##thread colour=red\n1")
    assert result.status == "error"
    assert "colour" in result.content["evalue"]
    assert result.error["evalue"] == result.content["evalue"]


def test_a_backend_that_is_not_installed_is_an_error_under_the_cell(fresh_kernel: Kernel) -> None:
    fresh_kernel.run_ok(
        "import sys\n"
        "class WithoutTrio:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'trio':\n"
        "            raise ModuleNotFoundError('hidden', name='trio')\n"
        "sys.meta_path.insert(0, WithoutTrio())\n"
        "for name in [name for name in sys.modules if name.split('.')[0] == 'trio']:\n"
        "    del sys.modules[name]"
    )
    for code in ("##thread backend=trio\n1", "%%thread backend=trio\n1"):
        result = fresh_kernel.run(code)
        expected = "the backend 'trio' is not installed: pip install trio"
        assert [result.content["evalue"], result.error["evalue"]] == [expected] * 2


def test_an_unknown_mode_in_the_metadata_is_an_error_reply(kernel: Kernel) -> None:
    result = kernel.run("1", metadata={"run_mode": "sideways"})
    assert result.status == "error"
    assert "sideways" in result.content["evalue"]
    assert "queue, task, thread, blocking" in result.error["evalue"]


def test_many_threads_at_once_all_answer(kernel: Kernel) -> None:
    cells = [kernel.execute(f"##thread\nimport time; time.sleep(0.01)\n{n}") for n in range(30)]
    assert [kernel.finish(cell).value for cell in cells] == [str(n) for n in range(30)]


def test_an_execute_request_on_control_runs_beside_the_queue(kernel: Kernel) -> None:
    kernel.run_ok("import asyncio\nevent = asyncio.Event()")
    waiting = kernel.execute("print('waiting')\nawait event.wait()")
    kernel.wait_for_text(waiting, "waiting")
    kernel.run_ok("event.set()", channel="control")
    kernel.finish(waiting)


def test_an_error_beside_the_queue_aborts_nothing(kernel: Kernel) -> None:
    kernel.run_ok("import asyncio")
    waiting = kernel.execute("print('waiting')\nawait asyncio.sleep(0.5)")
    queued = kernel.execute("'queued'")
    kernel.wait_for_text(waiting, "waiting")
    assert kernel.run("##task\n1/0").status == "error"
    assert kernel.finish(waiting).status == "ok"
    assert kernel.finish(queued).value == "'queued'"


def test_a_cell_with_a_timeout_ends_in_time(kernel: Kernel) -> None:
    result = kernel.run("import time\ntime.sleep(60)", metadata={"timeout": 0.5})
    assert result.content["ename"] == "TimeoutError"
    result = kernel.run(
        "import asyncio\nawait asyncio.sleep(60)", metadata={"tags": ["timeout=0.5"]}
    )
    assert result.content["ename"] == "TimeoutError"
    assert kernel.run_ok("'alive'").value == "'alive'"


def test_the_modes_are_listed_as_the_reference_has_them(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "modes = get_ipython().kernel.all_concurrency_run_modes()\n"
        "({name: len(column) for name, column in modes.items()})"
    )
    for name in ("SocketID", "KernelConcurrencyMode", "MsgType", "RunMode"):
        assert f"'{name}': 52" in result.value


def test_blocking_concurrency_mode_runs_everything_in_order(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.run_ok("import time\nget_ipython().kernel.concurrency_mode = 'blocking'")
    busy = kernel.execute("print('on')\ntime.sleep(0.5)\nlog = ['first']")
    kernel.wait_for_text(busy, "on")
    behind = kernel.execute("##task\nlog.append('second')\nlog")
    assert kernel.finish(behind).value == "['first', 'second']"
    kernel.finish(busy)
