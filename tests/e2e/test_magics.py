"""Magics, shell escapes, and the libraries that a notebook usually shows something with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kernel_client import Kernel


def test_a_shell_escape_prints_and_returns_lines(kernel: Kernel) -> None:
    result = kernel.run_ok("lines = !printf 'a\\nb\\n'\nlines\n!echo shown")
    kernel.wait_for_text(result, "shown")
    assert kernel.evaluate("list(lines)") == "['a', 'b']"


def test_the_exit_code_of_a_shell_escape_is_kept(kernel: Kernel) -> None:
    kernel.run_ok("!exit 3")
    assert kernel.evaluate("_exit_code") == "3"


def test_an_interrupt_ends_a_shell_escape(kernel: Kernel) -> None:
    busy = kernel.execute("!echo on; sleep 60")
    kernel.wait_for_text(busy, "on")
    kernel.interrupt()
    kernel.finish(busy)
    assert kernel.run_ok("'alive'").value == "'alive'"


def test_pip_runs_for_the_kernels_own_python(kernel: Kernel) -> None:
    has_pip = kernel.evaluate("__import__('importlib.util').util.find_spec('pip') is not None")
    result = kernel.run("%pip --version", deadline_s=60)
    if has_pip == "True":
        kernel.wait_for_text(result, "pip ")
    else:
        kernel.wait_for_text(result, "No module named pip")
        assert sys.executable.rsplit("/", 1)[0] in result.stdout + result.stderr


def test_bash_cells_have_their_streams(kernel: Kernel) -> None:
    result = kernel.run_ok("%%bash\nfor n in 1 2; do echo out $n; done\necho problem >&2")
    assert result.stdout == "out 1\nout 2\n"
    assert result.stderr == "problem\n"


def test_a_failing_bash_cell_is_an_error(kernel: Kernel) -> None:
    assert kernel.run("%%bash\nexit 3").content["ename"] == "CalledProcessError"


def test_time_magics_time(kernel: Kernel) -> None:
    result = kernel.run_ok("%time 6 * 7")
    assert "Wall time" in result.stdout
    assert result.value == "42"
    assert "Wall time" in kernel.run_ok("%%time\nx = 1").stdout
    assert "per loop" in kernel.run_ok("%timeit -n 1 -r 1 1").stdout


def test_capture_takes_streams_and_displays(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "%%capture taken\nimport sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')"
    )
    assert result.kinds == ["execute_input"]
    assert kernel.evaluate("(taken.stdout, taken.stderr, len(taken.outputs))") == (
        "('out\\n', 'err\\n', 1)"
    )
    assert kernel.run_ok("taken.show()").stdout.startswith("out")


@ours
def test_capture_takes_what_child_processes_print(kernel: Kernel) -> None:
    result = kernel.run_ok("%%capture taken\n!echo from child")
    assert result.stdout == ""
    assert "from child" in kernel.evaluate("taken.stdout")


def test_files_are_written_and_run(kernel: Kernel, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    kernel.run_ok(f"%%writefile {script}\nran_as = __name__\nprint('in the script')")
    assert kernel.run_ok(f"%run {script}").stdout == "in the script\n"
    assert kernel.evaluate("ran_as") == "'__main__'"


def test_who_and_reset_know_the_users_names_only(fresh_kernel: Kernel) -> None:
    fresh_kernel.run_ok("users_name = 1")
    assert fresh_kernel.run_ok("%who").stdout.split() == ["users_name"]
    fresh_kernel.run_ok("%reset -f")
    assert fresh_kernel.run("users_name").content["ename"] == "NameError"
    assert fresh_kernel.run_ok("get_ipython() is not None and 1").value == "1"


def test_a_matplotlib_figure_is_a_picture(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);", deadline_s=60
    )
    (bundle,) = result.displays
    assert bundle["image/png"].startswith("iVBORw0KGgo")
    assert "Figure size" in bundle["text/plain"]
    assert kernel.evaluate("plt.get_fignums()") == "[]"


def test_figures_are_inline_without_any_magic(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import matplotlib.pyplot as plt\n"
        "figure, axes = plt.subplots()\naxes.plot([1, 2])\nplt.show()",
        deadline_s=60,
    )
    assert ["image/png" in bundle for bundle in result.displays] == [True]


def test_a_widget_opens_its_comms_and_reacts(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider", deadline_s=60
    )
    opened = result.of("comm_open")
    assert {m["content"]["target_name"] for m in opened} == {"jupyter.widget"}
    (message,) = result.of("execute_result")
    model = message["content"]["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert model in [m["content"]["comm_id"] for m in opened]
    update = {"method": "update", "state": {"value": 8}, "buffer_paths": []}
    kernel.finish(kernel.send("comm_msg", {"comm_id": model, "data": update}))
    assert kernel.evaluate("slider.value") == "8"


def test_an_output_widget_takes_what_is_printed_in_it(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import ipywidgets\noutput = ipywidgets.Output()\nwith output:\n    print('inside')\n"
        "print('outside')",
        deadline_s=60,
    )
    states = [m["content"]["data"].get("state", {}) for m in result.of("comm_msg")]
    ids = [state["msg_id"] for state in states if "msg_id" in state]
    assert ids == [result.msg_id, ""]
    assert "outside" in result.stdout


def test_a_data_frame_is_html(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import pandas\npandas.DataFrame({'a': [1, 2], 'b': ['x', 'é']})", deadline_s=60
    )
    (message,) = result.of("execute_result")
    assert "<table" in message["content"]["data"]["text/html"]
    assert "é" in message["content"]["data"]["text/plain"]


@pytest.mark.parametrize("code", ["%no_such_magic", "%%no_such_magic\n1"])
def test_an_unknown_magic_says_so(kernel: Kernel, code: str) -> None:
    result = kernel.run(code)
    assert "no_such_magic" in result.stderr + str(result.content)
