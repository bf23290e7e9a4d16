"""What libraries look at to tell a notebook, and the cells in it: they know ipykernel's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel


def test_a_progress_bar_of_tqdm_is_a_widget(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import warnings\nwarnings.simplefilter('ignore')\n"
        "from tqdm.auto import tqdm\nfor step in tqdm(range(2)): pass",
        deadline_s=60,
    )
    assert "comm_open" in result.kinds
    (shown,) = result.of("display_data")
    assert "application/vnd.jupyter.widget-view+json" in shown["content"]["data"]


def test_the_file_of_a_cell_is_known_as_a_cell_s(kernel: Kernel) -> None:
    # numba caches only what has such a name, joblib finds its cache again by it after a restart.
    kernel.run_ok("import os, re\ndef function(): pass\nname = function.__code__.co_filename")
    assert (
        kernel.evaluate("bool(re.search(r'[/\\\\]ipykernel_\\d+[/\\\\]\\d+\\.py$', name))")
        == "True"
    )
    assert kernel.evaluate("os.path.basename(os.path.dirname(name))").startswith("'ipykernel_")


def test_colours_of_click_are_kept(kernel: Kernel) -> None:
    result = kernel.run_ok("import click\nclick.secho('red', fg='red')")
    assert result.stdout == "\x1b[31mred\x1b[0m\n"


def test_imported_modules_and_the_shell_s_class_say_so(kernel: Kernel) -> None:
    names = kernel.run_ok(
        "import sys\n[name in sys.modules for name in ('ipykernel', 'ipykernel.zmqshell')]"
    )
    assert names.value == "[True, True]"
    assert kernel.run_ok("str(type(get_ipython()))").value == (
        "\"<class 'ipykernel.zmqshell.ZMQInteractiveShell'>\""
    )
    assert kernel.run_ok(
        "from ipykernel.iostream import OutStream\n"
        "from ipykernel.zmqshell import ZMQInteractiveShell\n"
        "isinstance(sys.stdout, OutStream), isinstance(get_ipython(), ZMQInteractiveShell)",
        deadline_s=60,
    ).value == ("(True, True)")


def test_the_configuration_names_the_connection_file(kernel: Kernel) -> None:
    assert kernel.evaluate(
        "get_ipython().config['IPKernelApp']['connection_file'] == "
        "get_ipython().kernel.config['IPKernelApp']['connection_file']"
    ) == ("True")
    assert kernel.evaluate(
        "__import__('os').path.exists(get_ipython().config['IPKernelApp']['connection_file'])"
    ) == ("True")


def test_a_cell_that_parses_a_command_line_finds_that_of_ipykernel(kernel: Kernel) -> None:
    # Scripts pasted into a notebook declare ``-f`` to get past it.
    kernel.run_ok(
        "import argparse, os\nparser = argparse.ArgumentParser()\nparser.add_argument('-f')\n"
        "options = parser.parse_args()"
    )
    assert kernel.evaluate("parser.prog, os.path.exists(options.f)") == (
        "('ipykernel_launcher.py', True)"
    )


def test_the_history_is_configured_by_its_usual_name(kernel: Kernel) -> None:
    assert "HistoryManager.db_cache_size" in kernel.run_ok("%config HistoryManager").stdout
    assert kernel.run_ok("%config HistoryManager.db_log_output").value == "False"
