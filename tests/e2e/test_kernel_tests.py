"""The Jupyter project's own test suite for kernels, with every optional feature switched on."""

from __future__ import annotations

from typing import Any

import jupyter_kernel_test
import pytest

from e2e.spec import KERNEL, ours

COMPLETIONS: list[dict[str, Any]] = [
    {"text": "zi", "matches": {"zip"}},
    {"text": "import zipfi", "matches": {"zipfile"}},
    {"text": "str.isupp", "matches": {"isupper"}},
]
COMPLETE: list[str] = ["1", "print('hello, world')", "f(x)\n"]
INCOMPLETE: list[str] = [
    "print('''hello",
    "def f(x):\n  x*2",
    "for i in [1]:",
]
INVALID: list[str] = ["import = 7q", "x = $3"]
RESULTS: list[dict[str, str]] = [
    {"code": "6*7", "result": "42"},
    {"code": "print(1) or 7", "result": "7"},
    {"code": "'once' 'only'", "result": "'onceonly'"},
    {
        "code": "from IPython.display import HTML; HTML('<b>x</b>')",
        "result": "<b>x</b>",
        "mime": "text/html",
    },
]
DISPLAYS: list[dict[str, str]] = [
    {
        "code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))",
        "mime": "text/html",
    },
    {
        "code": "from IPython.display import Math, display; display(Math('x=1'))",
        "mime": "text/latex",
    },
    {
        "code": "from IPython.display import JSON, display; display(JSON({'a': 1}))",
        "mime": "application/json",
    },
]


@pytest.fixture(scope="module", autouse=True)
def use_the_spec(kernel_name: str) -> None:
    """Have the kernelspec written before the classes start their kernels."""
    assert kernel_name == KERNEL


class TestEveryFeature(jupyter_kernel_test.KernelTests):  # type: ignore[misc]  # jupyter_kernel_test is untyped
    """KernelTests; an empty sample would skip its test."""

    kernel_name = KERNEL
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = COMPLETIONS
    complete_code_samples = COMPLETE
    incomplete_code_samples = INCOMPLETE
    invalid_code_samples = INVALID
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('as wanted')"
    code_execute_result = RESULTS
    code_display_data = DISPLAYS
    supported_history_operations = ("tail", "range", "search")
    code_history_pattern = "*'once' 'only'*"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


@ours  # it waits for ever where there is no such message
class TestIopubWelcome(jupyter_kernel_test.IopubWelcomeTests):  # type: ignore[misc]  # jupyter_kernel_test is untyped
    """The first message on iopub welcomes the subscriber."""

    kernel_name = KERNEL
    support_iopub_welcome = True
