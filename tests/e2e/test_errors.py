"""Errors of the user's code and objects that are hard to show: each has a clear answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

from e2e.spec import ours

ANSI = re.compile(r"\x1b\[[0-9;]*m")
OWN_TRACEBACK = ["execute_input", "stream"]


def _traceback(content: dict[str, list[str]]) -> str:
    return ANSI.sub("", "\n".join(content["traceback"]))


def test_a_traceback_names_the_cell_and_shows_its_line(kernel: Kernel) -> None:
    kernel.run_ok("def fail():\n    raise ValueError('as wanted')")
    result = kernel.run("a = 1\nfail()")
    text = _traceback(result.content)
    count = result.content["execution_count"]
    assert f"In[{count}]" in text or f"In [{count}]" in text
    assert "----> 2 fail()" in text
    assert f"In[{count - 1}]" in text or f"In [{count - 1}]" in text
    assert "raise ValueError('as wanted')" in text
    assert "unstuck_worker" not in text
    assert "ipykernel" not in text


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("x = (", "SyntaxError"),
        ("x = = 2", "SyntaxError"),
        ("  x = 1\n y = 2", "IndentationError"),
        ("for i in 1:\npass", "IndentationError"),
        ("return 5", "SyntaxError"),
        ("no_such_name", "NameError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise ExceptionGroup('several', [ValueError(1)])", "ExceptionGroup"),
        ("raise BaseException('base')", "BaseException"),
        ("x = 1\nx.y.z", "AttributeError"),
        ("'a\0b'", "SyntaxError"),
    ],
)
def test_an_error_has_its_name(kernel: Kernel, code: str, ename: str) -> None:
    result = kernel.run(code)
    assert result.content["ename"] == ename
    assert result.error["ename"] == ename
    assert kernel.run_ok("'alive'").value == "'alive'"


def test_a_deep_recursion_is_a_short_traceback(kernel: Kernel) -> None:
    result = kernel.run("def f(n): return f(n + 1)\nf(0)")
    assert result.content["ename"] == "RecursionError"
    assert len(_traceback(result.content)) < 200_000


@ours
def test_a_traceback_of_thousands_of_frames_takes_no_time(kernel: Kernel) -> None:
    result = kernel.run(
        "import sys\nsys.setrecursionlimit(20_000)\n"
        "def deep(n): return deep(n - 1) if n else 1 / 0\ndeep(9_000)",
        deadline_s=10,
    )
    text = _traceback(result.content)
    assert result.error["ename"] == "ZeroDivisionError"
    assert "[Previous line repeated" in text
    assert "interactiveshell.py" not in text
    assert kernel.evaluate("sys.last_value.args") == "('division by zero',)"


BROKEN_STR = """
class Broken(Exception):
    def __str__(self): raise FAILURE
    __repr__ = __str__
raise Broken('x')
"""


@ours
@pytest.mark.parametrize("failure", ["ValueError('no str')", "SystemExit", "GeneratorExit"])
def test_an_exception_that_cannot_be_shown_is_still_an_error(kernel: Kernel, failure: str) -> None:
    result = kernel.run(BROKEN_STR.replace("FAILURE", failure))
    assert result.content["ename"] == "Broken"
    assert result.error["ename"] == "Broken"
    assert kernel.run_ok("'alive'").value == "'alive'"


def test_chained_errors_are_all_shown(kernel: Kernel) -> None:
    code = (
        "try:\n    {}['missing']\n"
        "except KeyError as error:\n    raise ValueError('outer') from error"
    )
    text = _traceback(kernel.run(code).content)
    assert "KeyError" in text
    assert "direct cause" in text
    assert "outer" in text


def test_a_failing_repr_is_an_error_of_the_cell_that_shows_it(kernel: Kernel) -> None:
    kernel.run_ok("class Bad:\n    def __repr__(self): raise ValueError('no repr')\nbad = Bad()")
    result = kernel.run("bad")
    assert "no repr" in _traceback(result.error if result.of("error") else result.content) or (
        "no repr" in result.stderr
    )
    assert kernel.run_ok("'alive'").value == "'alive'"


def test_a_failing_rich_repr_leaves_the_others(kernel: Kernel) -> None:
    result = kernel.run(
        "class Half:\n    def _repr_html_(self): raise ValueError('no html')\n"
        "    def __repr__(self): return 'the plain one'\nHalf()"
    )
    (message,) = result.of("execute_result")
    assert message["content"]["data"] == {"text/plain": "the plain one"}
    assert "no html" in result.stderr + str(result.of("error"))


def test_a_rich_repr_of_a_wrong_type_is_left_out(kernel: Kernel) -> None:
    result = kernel.run(
        "class Wrong:\n    def _repr_html_(self): return 12345\n"
        "    def __repr__(self): return 'the plain one'\nWrong()"
    )
    (message,) = result.of("execute_result")
    assert message["content"]["data"]["text/plain"] == "the plain one"
    assert "text/html" not in message["content"]["data"]


@ours
def test_an_output_that_cannot_be_serialised_is_named(kernel: Kernel) -> None:
    result = kernel.run(
        "from IPython.display import publish_display_data\n"
        "publish_display_data({'application/json': {'what': object()}})"
    )
    assert result.status == "error"
    assert "object" in result.content["evalue"]
    assert kernel.run_ok("'alive'").value == "'alive'"


def test_values_that_json_does_not_have_are_survived(kernel: Kernel) -> None:
    result = kernel.run(
        "from IPython.display import publish_display_data\nimport datetime\n"
        "publish_display_data({'application/json': {'nan': float('nan'), 'b': b'bytes',\n"
        "    'date': datetime.datetime(2026, 1, 2), 1: 'int key'}})"
    )
    assert result.status in ("ok", "error")
    assert kernel.run_ok("'alive'").value == "'alive'"


@ours
def test_a_repr_that_hangs_is_interrupted(kernel: Kernel) -> None:
    busy = kernel.execute(
        "import time\nclass Slow:\n    def __repr__(self):\n        print('hanging')\n"
        "        time.sleep(600)\n        return 'slow'\nSlow()"
    )
    kernel.wait_for_text(busy, "hanging")
    kernel.interrupt()
    kernel.finish(busy)
    assert kernel.run_ok("'alive'").value == "'alive'"


def test_a_custom_exception_handler_is_used(kernel: Kernel) -> None:
    kernel.run_ok(
        "def handler(shell, etype, value, tb, tb_offset=None):\n    print('handled', value)\n"
        "get_ipython().set_custom_exc((ZeroDivisionError,), handler)"
    )
    result = kernel.run("1/0")
    assert "handled division by zero" in result.stdout
    kernel.run_ok("get_ipython().set_custom_exc((), None)")


def test_a_library_that_shows_tracebacks_itself_shows_them_once(kernel: Kernel) -> None:
    # As rich does: it is called with the formatted traceback, and displays its own.
    kernel.run_ok("ip = get_ipython()\nip._showtraceback = lambda *given, **how: print('shown')")
    failed = kernel.run("1/0")
    invalid = kernel.run("1 +")
    kernel.run_ok("del ip._showtraceback")
    assert (failed.status, failed.kinds, failed.stdout) == ("error", OWN_TRACEBACK, "shown\n")
    assert (invalid.status, invalid.kinds, invalid.stdout) == ("error", OWN_TRACEBACK, "shown\n")


def test_an_error_in_a_thread_is_on_stderr_under_its_cell(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import threading\nthread = threading.Thread(target=lambda: 1/0)\n"
        "thread.start(); thread.join()"
    )
    kernel.wait_for_text(result, "ZeroDivisionError")


def test_an_error_in_a_task_is_given_to_who_awaits_it(kernel: Kernel) -> None:
    result = kernel.run(
        "import asyncio\nasync def fail(): raise ValueError('in the task')\n"
        "await asyncio.create_task(fail())"
    )
    assert result.content["evalue"] == "in the task"
