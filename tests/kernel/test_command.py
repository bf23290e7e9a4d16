"""The command line: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from e2e.spec import SOURCE_PATH
from unstuck.command import COMMANDS, main
from unstuck.command.run import plan_outputs
from unstuck.errors import ConfigError
from unstuck.kernelspec import read_spec
from unstuck.version import __version__


@pytest.fixture(autouse=True)
def jupyter_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's kernelspecs out of it."""
    folder = tmp_path / "jupyter"
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PYTHONPATH", SOURCE_PATH)
    return folder


def unstuck(*arguments: str | Path, answer: str = "") -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=answer)


def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def one_line(result: Result) -> str:
    """Give the one line of a refusal, which is no traceback and ends with code 2."""
    assert result.exit_code == 2, result.output
    [line] = result.output.splitlines()
    assert line.startswith("unstuck: ")
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    result = unstuck(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"  unstuck {command}" in result.output


def test_the_help_lists_every_command() -> None:
    result = unstuck("--help")
    for name, text in COMMANDS.items():
        assert name in result.output
        assert text in result.output
    assert "Example: " in result.output


def test_the_version_is_told() -> None:
    assert unstuck("--version").output == f"unstuck, version {__version__}\n"


def test_versions_for_a_report_are_told() -> None:
    lines = dict(line.split(maxsplit=1) for line in unstuck("version").output.splitlines())
    assert lines["unstuck"] == __version__
    assert lines["executable"] == sys.executable
    assert set(lines) >= {"python", "ipython", "pyzmq", "jupyter_client", "platform"}


def test_the_module_is_the_command() -> None:
    done = in_a_process("-m", "unstuck", "--version")
    assert (done.returncode, done.stdout) == (0, f"unstuck, version {__version__}\n")


def test_importing_the_command_imports_nothing_heavy() -> None:
    code = "import sys, unstuck.command; print(*sys.modules)"
    loaded = set(in_a_process("-c", code).stdout.split())
    heavy = {
        "rich",
        "nbclient",
        "nbformat",
        "jupyter_client",
        "zmq",
        "IPython",
        "asyncio",
        "msgspec",
    }
    assert "click" in loaded
    assert not loaded & heavy


def test_an_unknown_command_is_refused() -> None:
    result = unstuck("explode")
    assert result.exit_code == 2
    assert "No such command 'explode'" in result.output


def test_install_says_where_and_what_next(jupyter_folder: Path) -> None:
    result = unstuck("install")
    assert result.exit_code == 0, result.output
    home = jupyter_folder / "kernels" / "unstuck"
    assert f"Installed 'Python 3 (unstuck)' as {home}" in result.output
    assert sys.executable in result.output
    assert "JupyterLab" in result.output
    assert read_spec(home) is not None


def test_install_takes_names_variables_and_settings(jupyter_folder: Path) -> None:
    result = unstuck(
        *("install", "--name", "Steady", "--display-name", "Steady on"),
        *("--env", "A", "1", "--env", "B", "x y"),
        *("--set", "jedi=false", "--set", "interrupt_policy=never"),
    )
    assert result.exit_code == 0, result.output
    spec = read_spec(jupyter_folder / "kernels" / "steady")
    assert spec is not None
    assert spec["display_name"] == "Steady on"
    assert spec["env"] == {"A": "1", "B": "x y"}
    assert spec["argv"][-4:] == ["--set", "jedi=false", "--set", "interrupt_policy=never"]


def test_install_into_an_environment_says_who_will_see_it(tmp_path: Path) -> None:
    result = unstuck("install", "--prefix", tmp_path)
    assert result.exit_code == 0, result.output
    assert read_spec(tmp_path / "share" / "jupyter" / "kernels" / "unstuck") is not None
    assert f"JUPYTER_PATH={tmp_path / 'share' / 'jupyter'}" in result.output


def test_install_warns_when_another_spec_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "first"))
    unstuck("install")
    spec = tmp_path / "jupyter" / "kernels" / "unstuck"
    spec.parent.rename(tmp_path / "moved")
    (tmp_path / "first").mkdir()
    (tmp_path / "moved").rename(tmp_path / "first" / "kernels")
    result = unstuck("install")
    assert f"Jupyter will still take {tmp_path / 'first' / 'kernels' / 'unstuck'}" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", "a b"], "no kernel name"),
        (["--set", "grace=1"], "unknown setting 'grace'"),
        (["--set", "interrupt_grace_s=soon"], "bad setting"),
        (["--env", "1A", "x"], "no name of an environment variable"),
        (["--prefix", "/no/such/folder"], "no such folder"),
        (["--user", "--sys-prefix"], "choose one of"),
        (["--prefix", "/proc"], "cannot install into /proc/share/jupyter/kernels"),
    ],
)
def test_install_refuses_in_one_line(arguments: list[str], words: str) -> None:
    assert words in one_line(unstuck("install", *arguments))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_install_without_permission_is_refused_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "Permission denied" in one_line(unstuck("install", "--prefix", tmp_path))


def test_uninstall_asks_first(jupyter_folder: Path) -> None:
    unstuck("install")
    home = jupyter_folder / "kernels" / "unstuck"
    refused = unstuck("uninstall", answer="n\n")
    assert f"Remove {home}?" in refused.output
    assert home.exists()
    assert unstuck("uninstall", answer="y\n").exit_code == 0
    assert not home.exists()


def test_uninstall_does_not_ask_when_told_so(jupyter_folder: Path) -> None:
    unstuck("install", "--name", "steady")
    result = unstuck("uninstall", "--name", "steady", "-y")
    home = jupyter_folder / "kernels" / "steady"
    assert result.output == f"Removed {home}\n"
    assert not home.exists()


def test_uninstall_refuses_another_kernel(jupyter_folder: Path) -> None:
    home = jupyter_folder / "kernels" / "other"
    home.mkdir(parents=True)
    (home / "kernel.json").write_text(
        json.dumps({"argv": ["x"], "display_name": "", "language": ""})
    )
    assert "another kernel's" in one_line(unstuck("uninstall", "--name", "other", "-y"))
    assert (home / "kernel.json").exists()


def test_uninstall_says_where_else_a_spec_is(tmp_path: Path) -> None:
    unstuck("install")
    line = one_line(unstuck("uninstall", "--prefix", tmp_path, "-y"))
    assert str(tmp_path / "jupyter" / "kernels" / "unstuck") in line


def test_uninstall_of_nothing_is_refused() -> None:
    assert "no kernelspec 'absent' of ours" in one_line(unstuck("uninstall", "--name", "absent"))


def test_list_shows_specs_with_their_settings_and_problems(jupyter_folder: Path) -> None:
    unstuck("install", "--name", "steady", "--set", "jedi=false", "--env", "A", "1")
    unstuck("install", "--name", "orphan")
    path = jupyter_folder / "kernels" / "orphan" / "kernel.json"
    path.write_text(path.read_text().replace(sys.executable, "/gone/python"))
    output = unstuck("list").output
    assert "Python 3 (steady)" in output
    assert "jedi=false" in output
    assert "A=1 (environment)" in output
    assert str(jupyter_folder / "kernels" / "steady") in output
    assert "is gone: install again" in output


def test_results_go_beside_the_notebooks_unless_told_otherwise(tmp_path: Path) -> None:
    one, other = tmp_path / "one.ipynb", tmp_path / "b" / "one.ipynb"
    plan = plan_outputs([one, other], output=None, folder=None, inplace=False)
    assert plan == [(one, tmp_path / "one.out.ipynb"), (other, tmp_path / "b" / "one.out.ipynb")]
    assert plan_outputs([one], output=other, folder=None, inplace=False) == [(one, other)]
    assert plan_outputs([one], output=None, folder=None, inplace=True) == [(one, one)]


def test_a_missing_output_folder_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    plan = plan_outputs([Path("x.ipynb")], output=None, folder=folder, inplace=False)
    assert plan == [(Path("x.ipynb"), folder / "x.ipynb")]
    assert folder.is_dir()


def test_the_results_of_the_last_run_are_not_run_again(tmp_path: Path) -> None:
    one, result = tmp_path / "one.ipynb", tmp_path / "one.out.ipynb"
    plan = plan_outputs([one, result], output=None, folder=None, inplace=False)
    assert plan == [(one, result)]


def test_a_notebook_that_is_to_hold_its_own_result_is_run(tmp_path: Path) -> None:
    one, two = tmp_path / "one.ipynb", tmp_path / "two.ipynb"
    assert plan_outputs([one], output=one, folder=None, inplace=False) == [(one, one)]
    beside = plan_outputs([one, two], output=None, folder=tmp_path, inplace=False)
    assert beside == [(one, one), (two, two)]


def test_two_results_never_go_into_one_file(tmp_path: Path) -> None:
    notebooks = [tmp_path / "a" / "x.ipynb", tmp_path / "b" / "x.ipynb"]
    with pytest.raises(ConfigError, match="both be written"):
        plan_outputs(notebooks, output=None, folder=tmp_path, inplace=False)
    with pytest.raises(ConfigError, match="--output-dir"):
        plan_outputs(notebooks, output=tmp_path / "o.ipynb", folder=None, inplace=False)
    with pytest.raises(ConfigError, match="choose one"):
        plan_outputs(notebooks, output=None, folder=tmp_path, inplace=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "grace=1"], "unknown setting 'grace'"),
        (["--kernel", "no-such-kernel"], "no kernelspec 'no-such-kernel'"),
        (["--kernel", "python3", "--set", "jedi=false"], "another kernel"),
        (["--output-dir", "/proc/x"], "cannot make /proc/x"),
        (["--inplace", "-o", "x.ipynb"], "choose one of"),
    ],
)
def test_run_refuses_options_in_one_line(arguments: list[str], words: str) -> None:
    assert words in one_line(unstuck("run", "x.ipynb", *arguments))


def test_run_refuses_a_timeout_that_is_none() -> None:
    assert unstuck("run", "x.ipynb", "--timeout", "0").exit_code == 2
    assert unstuck("run", "x.ipynb", "--timeout", "soon").exit_code == 2


def test_run_needs_a_notebook() -> None:
    result = unstuck("run")
    assert result.exit_code == 2
    assert "NOTEBOOKS" in result.output
