"""The doctor: each check finds what is wrong, and says what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from e2e.spec import KERNEL, OURS, SOURCE_PATH
from unstuck.command import main
from unstuck.command.checks.finding import Finding, Level, good
from unstuck.command.checks.kernels import check_kernelspecs, check_start
from unstuck.command.checks.machine import (
    check_jupyter,
    check_limits,
    check_memory,
    check_process_control,
    check_runtime_folder,
    judge_limit,
)
from unstuck.command.checks.python import (
    MODULES,
    check_own_modules,
    check_packages,
    check_python,
    check_system,
    check_variables,
)
from unstuck.command.doctor import findings
from unstuck.headless.kernel import KernelChoice
from unstuck.kernelspec import InstalledSpec, SpecOptions, install_spec, installed_specs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = None if KERNEL == OURS else KERNEL


@pytest.fixture(autouse=True)
def source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that are started from here find us, installed or not."""
    monkeypatch.setenv("PYTHONPATH", SOURCE_PATH)


def levels(found: Iterable[Finding]) -> list[Level]:
    return [finding.level for finding in found]


def the_wrong_one(found: Iterable[Finding]) -> Finding:
    """Give the one wrong finding, which says what to do."""
    [finding] = [finding for finding in found if finding.level is Level.wrong]
    assert finding.remedy
    return finding


@pytest.mark.parametrize(
    ("version", "implementation", "level"),
    [
        ((3, 10), "CPython", Level.wrong),
        ((3, 11), "CPython", Level.good),
        ((3, 13), "CPython", Level.good),
        ((3, 14), "CPython", Level.note),
        ((3, 11), "PyPy", Level.wrong),
    ],
)
def test_the_version_of_python_is_judged(
    version: tuple[int, int], implementation: str, level: Level
) -> None:
    assert levels(check_python(version, implementation)) == [level]


def test_windows_is_wrong_and_macos_is_less_tested() -> None:
    assert "WSL 2" in the_wrong_one(check_system("win32")).remedy
    assert levels(check_system("darwin")) == [Level.note]
    assert levels(check_system("linux")) == [Level.good]


def test_every_dependency_is_looked_at() -> None:
    assert levels(check_packages()) == [Level.good] * len(MODULES)


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    finding = the_wrong_one(check_packages({"no-such-package": "no_such_package"}))
    assert finding.subject == "Package no-such-package"
    assert finding.remedy == "pip install no-such-package"


def test_a_package_that_cannot_be_imported_is_told_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_for_doctor.py").write_text("raise OSError('libfoo.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    finding = the_wrong_one(check_packages({"click": "broken_for_doctor"}))
    assert "OSError: libfoo.so is missing" in finding.seen


def test_a_package_that_is_too_old_is_told_with_what_is_wanted() -> None:
    finding = the_wrong_one(check_packages({"click": "click"}, {"click": "99.1"}))
    assert "older than 99.1" in finding.seen
    assert finding.remedy == "pip install 'click>=99.1'"
    assert levels(check_packages({"click": "click"}, {"click": "8.1"})) == [Level.good]


def test_our_own_packages_are_looked_for() -> None:
    assert levels(check_own_modules()) == [Level.good] * 3
    assert the_wrong_one(check_own_modules(("no_such_module_of_ours",))).remedy


def test_variables_that_disturb_are_told_with_what_they_do() -> None:
    assert levels(check_variables({"PATH": "/bin", "PYTHONUNBUFFERED": "1"})) == [Level.good]
    assert "unset PYTHONHOME" in the_wrong_one(check_variables({"PYTHONHOME": "/x"})).remedy
    [finding] = check_variables({"PYTHONOPTIMIZE": "1"})
    assert finding.level is Level.note
    assert "assert" in finding.seen
    inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    assert levels(check_variables(inline)) == [Level.good]
    assert levels(check_variables({"MPLBACKEND": "agg"})) == [Level.note]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_a_missing_proc_is_wrong(tmp_path: Path) -> None:
    assert levels(check_process_control()) == [Level.good, Level.good]
    assert str(tmp_path) in the_wrong_one(check_process_control(tmp_path)).seen


def test_limits_are_judged_by_what_a_kernel_needs() -> None:
    assert judge_limit("open files", 64, 256).level is Level.wrong
    assert judge_limit("open files", 256, 256).level is Level.good
    assert judge_limit("open files", -1, 256).level is Level.good
    assert len(list(check_limits())) == 3


def test_the_memory_of_a_container_is_told(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{100 << 20}\n")
    assert "100 MB" in list(check_memory(limit))[-1].seen
    limit.write_text("max\n")
    assert len(list(check_memory(limit))) == 1
    assert len(list(check_memory(tmp_path / "missing"))) == 1


def test_a_runtime_folder_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    assert levels(check_runtime_folder(tmp_path / "new")) == [Level.good, Level.good]
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    finding = the_wrong_one(check_runtime_folder(tmp_path / "file" / "folder"))
    assert "JUPYTER_RUNTIME_DIR" in finding.remedy


def test_a_missing_frontend_is_a_note_only() -> None:
    assert levels(check_jupyter(["no-such-frontend"])) == [Level.note]
    assert levels(check_jupyter([Path(sys.executable).name])) == [Level.good]


def installed(folder: Path, options: SpecOptions, python: str = sys.executable) -> InstalledSpec:
    home = install_spec(options, folder)
    path = home / "kernel.json"
    path.write_text(path.read_text().replace(sys.executable, python))
    [spec] = installed_specs([folder])
    return spec


def test_no_kernelspec_is_a_note_with_the_next_step() -> None:
    [finding] = check_kernelspecs([])
    assert (finding.level, finding.remedy) == (Level.note, "unstuck install")


def test_a_kernelspec_whose_python_has_unstuck_is_good(tmp_path: Path) -> None:
    spec = installed(tmp_path, SpecOptions(env={"PYTHONPATH": SOURCE_PATH}))
    assert levels(check_kernelspecs([spec])) == [Level.good]


def test_a_kernelspec_whose_python_is_gone_is_wrong(tmp_path: Path) -> None:
    spec = installed(tmp_path, SpecOptions(), python="/gone/python")
    assert "its Python is gone: /gone/python" in the_wrong_one(check_kernelspecs([spec])).seen


def test_a_kernelspec_whose_python_has_no_unstuck_is_wrong(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    spec = installed(tmp_path / "kernels", SpecOptions(), python=str(python))
    assert "has no unstuck" in the_wrong_one(check_kernelspecs([spec])).seen


def test_a_kernelspec_with_a_setting_of_another_version_is_wrong(tmp_path: Path) -> None:
    spec = installed(tmp_path, SpecOptions(settings=["jedi=false"]))
    path = spec.folder / "kernel.json"
    path.write_text(path.read_text().replace("jedi=false", "judo=false"))
    finding = the_wrong_one(check_kernelspecs(installed_specs([tmp_path])))
    assert "judo" in finding.seen


@pytest.mark.parametrize("name", [NAME, "python3"])
def test_a_kernel_is_really_started_and_timed(name: str | None) -> None:
    [finding] = check_start(KernelChoice(name=name))
    assert finding.level is Level.good, finding.seen
    assert "computed 1 + 1 in" in finding.seen


def test_a_kernel_that_cannot_start_is_wrong_with_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "unstuck_broker"
    broken.mkdir()
    (broken / "__init__.py").write_text("")
    (broken / "__main__.py").write_text("raise SystemExit('out of luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "out of luck" in the_wrong_one(check_start()).seen


def test_a_check_that_breaks_is_told_and_hides_nothing() -> None:
    def check_luck() -> Iterator[Finding]:
        yield good("Luck", "so far")
        raise OSError("it ran out")

    found = list(findings(check_luck))
    assert levels(found) == [Level.good, Level.wrong]
    assert "OSError: it ran out" in found[1].seen


def test_the_doctor_ends_with_code_0_when_nothing_is_wrong() -> None:
    result = CliRunner().invoke(main, ["doctor", "--no-start"])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].endswith("nothing is wrong.")


def test_the_doctor_ends_with_code_1_when_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    result = CliRunner().invoke(main, ["doctor", "--no-start"])
    assert result.exit_code == 1
    assert "wrong Environment: PYTHONHOME=/nowhere" in result.output
    assert "      -> unset PYTHONHOME before Jupyter is started" in result.output
    # Kernelspecs on the path are wrong as well, since their Python starts no more.
    assert result.output.splitlines()[-1].endswith(" wrong.")
