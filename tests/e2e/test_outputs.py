"""Where output lands: under the cell that started the thread, task, process or C code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

IN_CHILD = {
    "os.system": "import os; os.system('echo from child')",
    "os.write": "import os; os.write(1, b'from child\\n');",
    "subprocess": "import subprocess; subprocess.run(['echo', 'from child'], check=True);",
    "shell escape": "!echo from child",
    "bash cell": "%%bash\necho from child",
    "ctypes": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.puts(b'from child')\nlibc.fflush(None);"
    ),
    "ctypes write": "import ctypes; ctypes.CDLL(None).write(1, b'from child\\n', 11);",
    "os.fork": (
        "import os\nif not (pid := os.fork()):\n    print('from child', flush=True)\n"
        "    os._exit(0)\nos.waitpid(pid, 0);"
    ),
    "multiprocessing fork": (
        "import multiprocessing as m\nchild = m.get_context('fork').Process(target=print,\n"
        "    args=('from child',), kwargs={'flush': True})\nchild.start(); child.join()"
    ),
    "multiprocessing spawn": (
        "import multiprocessing as m\nchild = m.get_context('spawn').Process(target=print,\n"
        "    args=('from child',), kwargs={'flush': True})\nchild.start(); child.join()"
    ),
    "thread": (
        "import threading\nthread = threading.Thread(target=print, args=('from child',))\n"
        "thread.start(); thread.join()"
    ),
    "executor": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(2) as pool: list(pool.map(print, ['from child']))"
    ),
    "task": (
        "import asyncio\nasync def say(): print('from child')\nawait asyncio.create_task(say())"
    ),
    "to_thread": "import asyncio\nawait asyncio.to_thread(print, 'from child')",
}


@pytest.mark.parametrize("code", IN_CHILD.values(), ids=IN_CHILD.keys())
def test_output_lands_under_the_cell(kernel: Kernel, code: str) -> None:
    result = kernel.run_ok(code)
    kernel.wait_for_text(result, "from child")
    assert result.stdout.strip() == "from child"


def test_stderr_of_a_child_process_is_stderr(kernel: Kernel) -> None:
    result = kernel.run_ok("import os; os.write(2, b'bad news\\n');")
    kernel.wait_for_text(result, "bad news")
    assert result.stderr == "bad news\n"


@ours
def test_prints_and_the_output_of_children_keep_their_order(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import os\nfor n in range(20):\n    print('print', n)\n    os.system(f'echo child {n}')"
    )
    expected = "".join(f"print {n}\nchild {n}\n" for n in range(20))
    assert result.stdout == expected


@ours
def test_a_value_comes_behind_the_output_of_the_child_that_gave_it(kernel: Kernel) -> None:
    for _ in range(5):
        result = kernel.run_ok("import os; display(os.system('echo first')); os.system('echo 3')")
        assert result.kinds == [
            "execute_input",
            "stream",
            "display_data",
            "stream",
            "execute_result",
        ]


@ours
def test_a_library_that_holds_the_gil_may_write_a_megabyte(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import ctypes\nctypes.PyDLL(None).write(1, b'x' * 1_000_000, 1_000_000)"
    )
    kernel.wait(lambda: len(result.stdout) == 1_000_000, "the whole megabyte")


@ours
def test_a_thread_prints_under_its_own_cell_also_later(kernel: Kernel) -> None:
    first = kernel.run_ok(
        "import threading\ngo = threading.Event()\n"
        "def late():\n    go.wait(30)\n    print('late text')\n"
        "thread = threading.Thread(target=late)\nthread.start()"
    )
    second = kernel.run_ok("print('second'); go.set(); thread.join(30)")
    kernel.wait_for_text(first, "late text")
    assert second.stdout == "second\n"


@ours
def test_a_task_prints_under_its_own_cell_also_later(kernel: Kernel) -> None:
    first = kernel.run_ok(
        "import asyncio\ngo = asyncio.Event()\n"
        "async def late():\n    await go.wait()\n    print('late text')\n"
        "task = asyncio.create_task(late())"
    )
    second = kernel.run_ok("go.set()\nawait task\nprint('second')")
    kernel.wait_for_text(first, "late text")
    assert second.stdout == "second\n"


@ours
def test_a_child_process_prints_under_its_own_cell_also_later(kernel: Kernel) -> None:
    first = kernel.run_ok(
        "import subprocess\n"
        "child = subprocess.Popen(['sh', '-c', 'read line; echo late text'], stdin=-1)"
    )
    second = kernel.run_ok(
        "print('second')\nchild.stdin.write(b'go\\n'); child.stdin.close(); child.wait(30)"
    )
    kernel.wait_for_text(first, "late text")
    assert second.stdout == "second\n"


@ours
def test_a_thread_without_a_cell_prints_under_the_one_that_runs(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import _thread, threading\ndone = threading.Event()\n"
        "def work():\n    print('no context')\n    done.set()\n"
        "_thread.start_new_thread(work, ())\ndone.wait(30)"
    )
    kernel.wait_for_text(result, "no context")


def test_a_display_of_a_thread_lands_under_the_cell(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import threading\nthread = threading.Thread(target=display, args=('shown',))\n"
        "thread.start(); thread.join()"
    )
    kernel.wait(lambda: bool(result.displays), "the display")
    assert result.displays == [{"text/plain": "'shown'"}]


@ours
def test_cells_that_run_at_once_keep_their_outputs_apart(kernel: Kernel) -> None:
    cells = [
        kernel.execute(
            "##thread\nimport time\nfor n in range(50):\n"
            f"    print('cell {cell}'); time.sleep(0.001)"
        )
        for cell in range(4)
    ]
    for number, cell in enumerate(cells):
        kernel.finish(cell)
        assert cell.stdout == f"cell {number}\n" * 50


def test_a_process_pool_prints_and_returns(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as pool:\n"
        "    squares = pool.map(abs, range(-5, 0))\nsquares"
    )
    assert result.value == "[5, 4, 3, 2, 1]"


def test_a_forked_child_that_exits_normally_does_not_speak_for_the_kernel(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import os, sys\npid = os.fork()\nif not pid:\n    os._exit(7)\n"
        "os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    )
    assert result.value == "7"
    assert kernel.run_ok("'alive'").value == "'alive'"
