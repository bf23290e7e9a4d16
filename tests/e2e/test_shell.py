"""The Python that cells see: await, context, __main__, the notebook's folder, hooks, files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel
    from e2e.kernel_client import Kernel

HOSTILE = (
    "dataclasses",
    "signal",
    "json",
    "typing",
    "asyncio",
    "zmq",
    "msgspec",
    "codec",
    "logging",
)


def test_a_cell_may_await(kernel: Kernel) -> None:
    result = kernel.run_ok("import asyncio\nx = await asyncio.sleep(0.01, 'awaited')\nx")
    assert result.value == "'awaited'"


def test_async_for_and_async_with_work_at_the_top(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import contextlib\n@contextlib.asynccontextmanager\nasync def give():\n    yield 'given'\n"
        "async def count():\n    for n in range(3):\n        yield n\n"
        "async with give() as text: print(text)\n[n async for n in count()]"
    )
    assert result.stdout == "given\n"
    assert result.value == "[0, 1, 2]"


def test_a_task_goes_on_between_cells(kernel: Kernel) -> None:
    kernel.run_ok(
        "import asyncio\nticks = []\nasync def tick():\n"
        "    while len(ticks) < 3:\n        ticks.append(1)\n        await asyncio.sleep(0.01)\n"
        "task = asyncio.create_task(tick())"
    )
    assert kernel.run_ok("await asyncio.wait_for(task, 10)\nlen(ticks)").value == "3"


@ours
def test_context_variables_last_from_cell_to_cell(kernel: Kernel) -> None:
    kernel.run_ok("import contextvars\nvariable = contextvars.ContextVar('variable')")
    kernel.run_ok("variable.set('set in a cell');")
    assert kernel.run_ok("variable.get()").value == "'set in a cell'"
    kernel.run_ok("import asyncio\nawait asyncio.sleep(0)\nvariable.set('after an await');")
    assert kernel.run_ok("variable.get()").value == "'after an await'"


def test_the_namespace_is_main(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "here = 5\nimport __main__, sys\n"
        "(__name__, __main__.here, sys.modules['__main__'].here, globals() is vars(__main__))"
    )
    assert result.value == "('__main__', 5, 5, True)"


def test_classes_of_cells_can_be_pickled(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import pickle, dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "pickle.loads(pickle.dumps(Point(3)))"
    )
    assert result.value == "Point(x=3)"


def test_the_notebooks_folder_is_importable_and_current(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    for name in ("worker", "broker", "kernel", "lane", "shell"):
        (tmp_path / f"{name}.py").write_text(f"where = 'my own {name}'\n")
    kernel = start_kernel(cwd=tmp_path)
    result = kernel.run_ok(
        "import worker, broker, kernel\n[worker.where, broker.where, kernel.where]"
    )
    assert result.value == "['my own worker', 'my own broker', 'my own kernel']"
    assert kernel.run_ok("import lane, shell\nlane.where").value == "'my own lane'"
    result = kernel.run_ok(
        "import os, sys\n('' in sys.path or os.getcwd() in sys.path, os.getcwd())"
    )
    assert result.value == f"(True, {str(tmp_path)!r})"


@ours
def test_the_users_files_do_not_break_the_start(start_kernel: StartKernel, tmp_path: Path) -> None:
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the module you wanted')\n")
    kernel = start_kernel(cwd=tmp_path)
    assert kernel.run_ok("1 + 1").value == "2"
    assert kernel.run_ok("'complete'").value == "'complete'"
    content = {"code": "prin", "cursor_pos": 4}
    assert "print" in kernel.request("complete_request", content).content["matches"]
    assert kernel.run("import codec").content["ename"] == "RuntimeError"


def test_chdir_moves_the_kernel(fresh_kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "beside_me.py").write_text("x = 'found'\n")
    fresh_kernel.run_ok(f"import os\nos.chdir({str(tmp_path / 'there')!r})")
    assert fresh_kernel.run_ok("import beside_me\nbeside_me.x").value == "'found'"
    moved = fresh_kernel.run_ok("%cd ..")
    assert str(tmp_path) in moved.stdout


def test_ipython_files_are_read(start_kernel: StartKernel, tmp_path: Path) -> None:
    profile = tmp_path / "ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "00-first.py").write_text("from_startup = 'yes'\n")
    (profile / "ipython_kernel_config.py").write_text(
        "c.InteractiveShellApp.exec_lines = ['from_config = 7']\n"
        "c.InteractiveShellApp.extensions = ['my_extension']\n"
        "c.InteractiveShell.ast_node_interactivity = 'all'\n"
    )
    (tmp_path / "my_extension.py").write_text(
        "def load_ipython_extension(shell):\n    shell.user_ns['from_extension'] = 'loaded'\n"
    )
    env = {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(tmp_path)}
    kernel = start_kernel(cwd=tmp_path, env=env)
    assert kernel.run_ok("(from_startup, from_config)").value == "('yes', 7)"
    assert kernel.run_ok("from_extension").value == "'loaded'"
    assert len(kernel.run_ok("1\n2").of("execute_result")) == 2


@ours
def test_a_broken_startup_file_is_reported_and_survived(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-broken.py").write_text("1/0\n")
    kernel = start_kernel(env={"IPYTHONDIR": str(tmp_path / "ipython")})
    assert kernel.run_ok("1 + 1").value == "2"
    assert "00-broken.py" in kernel.log_text


def test_an_extension_is_loaded_by_its_magic(start_kernel: StartKernel, tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(
        "def load_ipython_extension(shell):\n"
        "    shell.register_magic_function(lambda line: print(line.upper()), magic_name='shout')\n"
    )
    kernel = start_kernel(cwd=tmp_path)
    assert kernel.run_ok("%load_ext shout\n%shout hello").stdout == "HELLO\n"


def test_the_kernel_object_is_what_libraries_look_for(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "shell = get_ipython()\nmine = shell.get_parent()['header']\n"
        "print(mine['msg_type'], mine['msg_id'])\n"
        "print(shell.kernel.get_parent()['header']['msg_id'])\n"
        "print(shell.kernel.get_parent('shell')['header']['msg_id'])\n"
        "print(shell.kernel.shell is shell, hasattr(shell.kernel, 'comm_manager'))"
    )
    one = result.msg_id
    assert result.stdout.split() == ["execute_request", one, one, one, "True", "True"]


def test_the_parent_on_control_is_the_newest_request_there(kernel: Kernel) -> None:
    asked = kernel.request("comm_info_request", channel="control")
    result = kernel.run_ok(
        "kernel = get_ipython().kernel\nprint(kernel.get_parent('control')['header']['msg_id'])\n"
        "print(kernel._parent_ident['control'] == kernel._parent_ident['shell'])"
    )
    assert result.stdout.split() == [asked.msg_id, "True"]


def test_a_thread_may_write_under_another_cell_for_a_while(kernel: Kernel) -> None:
    first = kernel.run_ok("elsewhere = get_ipython().get_parent()")
    second = kernel.run_ok(
        "import threading\ndef run():\n"
        "    shell = get_ipython()\n    tokens = shell.set_thread_parent(elsewhere)\n"
        "    print('there'); display('there'); shell.reset_thread_parent(tokens)\n"
        "    print('here')\n"
        "thread = threading.Thread(target=run)\nthread.start(); thread.join()"
    )
    kernel.wait(lambda: first.stdout == "there\n" and bool(first.displays), "the other cell")
    assert second.stdout == "here\n"


def test_options_of_ipykernel_in_a_kernelspec_still_mean_what_they_meant(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    profile = tmp_path / "elsewhere"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "00-first.py").write_text("from_startup = 'yes'\n")
    kernel = start_kernel(
        options=["--profile-dir", str(profile), "--matplotlib=inline", "--no-pprint"]
    )
    assert kernel.evaluate("from_startup") == "'yes'"
    assert kernel.evaluate("get_ipython().profile_dir.location") == repr(str(profile))
    assert kernel.evaluate("get_ipython().display_formatter.formatters['text/plain'].pprint") == (
        "False"
    )


def test_cell_hooks_run(kernel: Kernel) -> None:
    kernel.run_ok(
        "events = []\nhooks = get_ipython().events\n"
        "before = lambda info: events.append(('pre', info.raw_cell))\n"
        "after = lambda result: events.append(('post', result.result))\n"
        "hooks.register('pre_run_cell', before); hooks.register('post_run_cell', after)"
    )
    kernel.run_ok("'hooked'")
    kernel.run_ok(
        "hooks.unregister('pre_run_cell', before); hooks.unregister('post_run_cell', after)"
    )
    assert kernel.evaluate("('pre', \"'hooked'\") in events") == "True"
    assert kernel.evaluate("('post', 'hooked') in events") == "True"


@pytest.mark.parametrize(
    "code", ["import sys; sys.exit()", "import sys; sys.exit(3)", "raise SystemExit"]
)
def test_sys_exit_ends_the_cell_and_not_the_kernel(kernel: Kernel, code: str) -> None:
    kernel.run_ok("kept = 1")
    result = kernel.run(code)
    assert result.status == "error"
    assert result.content["ename"] == "SystemExit"
    assert kernel.run_ok("kept").value == "1"


def test_warnings_go_to_stderr(kernel: Kernel) -> None:
    result = kernel.run_ok("import warnings; warnings.warn('careful')")
    assert "careful" in result.stderr


def test_an_input_transformer_changes_cells(kernel: Kernel) -> None:
    kernel.run_ok(
        "transformers = get_ipython().input_transformers_post\n"
        "swap = lambda lines: [line.replace('$$', '42') for line in lines]\n"
        "transformers.append(swap)"
    )
    assert kernel.run_ok("x = $$\nx").value == "42"
    kernel.run_ok("transformers.remove(swap)")


def test_the_environment_says_that_this_is_a_notebook(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import os\n(os.environ.get('TERM'), os.environ.get('PAGER'), os.environ.get('CLICOLOR'),\n"
        " os.environ.get('JPY_PARENT_PID') is not None)"
    )
    assert result.value == "('xterm-color', 'cat', '1', True)"
