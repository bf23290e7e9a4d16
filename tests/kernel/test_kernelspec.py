"""Kernelspecs: what they hold, and how they come and go on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from unstuck import kernel_protocol_version
from unstuck.errors import ConfigError
from unstuck.kernelspec import (
    SpecOptions,
    check_name,
    check_platform,
    install_spec,
    installed_specs,
    is_ours,
    kernels_folder,
    make_spec,
    uninstall_spec,
)


def other_kernel(folder: Path, name: str = "unstuck") -> Path:
    home = folder / name
    home.mkdir(parents=True)
    spec = {"argv": ["python", "-m", "ipykernel_launcher"], "display_name": "X", "language": "y"}
    (home / "kernel.json").write_text(json.dumps(spec))
    return home


def test_a_spec_starts_the_broker_of_this_python_without_the_notebook_folder_on_its_path() -> None:
    spec = make_spec(SpecOptions(settings=["cell_timeout_s=60", "jedi=false"]))
    assert spec["argv"] == [
        *(sys.executable, "-P", "-m", "unstuck_broker", "-f", "{connection_file}"),
        *("--set", "cell_timeout_s=60", "--set", "jedi=false"),
    ]


def test_a_spec_says_what_frontends_ask_for() -> None:
    spec = make_spec(SpecOptions())
    assert spec["display_name"] == "Python 3 (unstuck)"
    assert spec["language"] == "python"
    assert spec["interrupt_mode"] == "message"
    assert spec["kernel_protocol_version"] == kernel_protocol_version
    assert spec["metadata"] == {"supported_encryption": ["curve"], "concurrent": True}
    assert "env" not in spec


def test_a_display_name_is_made_from_the_name_unless_it_is_given() -> None:
    assert make_spec(SpecOptions(name="steady"))["display_name"] == "Python 3 (steady)"
    assert make_spec(SpecOptions(name="steady", display_name="X"))["display_name"] == "X"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", ".", "ä", "a\n", "name\0"])
def test_a_name_that_jupyter_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no kernel name"):
        check_name(name)


def test_a_name_is_stored_in_lower_case_as_jupyter_does() -> None:
    assert check_name("My.Kernel_1-a") == "my.kernel_1-a"


@pytest.mark.parametrize("name", ["", "1A", "A=B", "A B", "A-B"])
def test_a_bad_name_of_an_environment_variable_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="environment variable"):
        make_spec(SpecOptions(env={name: "1"}))


def test_an_environment_variable_with_a_nul_character_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL"):
        make_spec(SpecOptions(env={"A": "x\0y"}))


@pytest.mark.parametrize("setting", ["interrupt_grase_s=5", "interrupt_grace_s", "jedi=perhaps"])
def test_a_setting_that_the_kernel_would_not_take_is_refused_at_install(setting: str) -> None:
    with pytest.raises(ConfigError, match="setting"):
        make_spec(SpecOptions(settings=[setting]))


def test_windows_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="WSL 2"):
        check_platform("win32")
    check_platform("linux")
    check_platform("darwin")


@pytest.mark.parametrize(
    ("argv", "ours"),
    [
        (["python", "-P", "-m", "unstuck_broker", "-f", "x"], True),
        (["python", "-m", "ipykernel_launcher"], False),
        (["unstuck_broker"], False),
        ("-m unstuck_broker", False),
        (None, False),
        ([1, 2], False),
    ],
)
def test_a_spec_is_ours_when_it_starts_our_broker(argv: object, ours: bool) -> None:
    assert is_ours(argv) is ours


def test_jupyter_reads_what_was_installed(tmp_path: Path) -> None:
    options = SpecOptions(env={"OMP_NUM_THREADS": "4"}, settings=["cell_timeout_s=60"])
    home = install_spec(options, tmp_path)
    spec = KernelSpecManager(kernel_dirs=[str(tmp_path)]).get_kernel_spec("unstuck")
    assert Path(spec.resource_dir) == home == tmp_path / "unstuck"
    assert spec.argv == make_spec(options)["argv"]
    assert spec.env == {"OMP_NUM_THREADS": "4"}
    assert spec.interrupt_mode == "message"


def test_an_installed_spec_has_logos_in_three_forms(tmp_path: Path) -> None:
    home = install_spec(SpecOptions(), tmp_path)
    logos = {"logo-32x32.png", "logo-64x64.png", "logo-svg.svg"}
    assert {path.name for path in home.iterdir()} == {"kernel.json", *logos}
    for size in (32, 64):
        header = (home / f"logo-{size}x{size}.png").read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert header[16:24] == size.to_bytes(4, "big") * 2


def test_an_installed_spec_can_be_read_by_other_users_as_the_umask_allows(tmp_path: Path) -> None:
    home = install_spec(SpecOptions(), tmp_path)
    probe = tmp_path / "probe"
    probe.mkdir()
    assert home.stat().st_mode == probe.stat().st_mode


def test_installing_again_replaces_ours_and_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    home = install_spec(SpecOptions(settings=["jedi=false"]), tmp_path)
    (home / "left.txt").write_text("over")
    install_spec(SpecOptions(display_name="second"), tmp_path)
    [spec] = installed_specs([tmp_path])
    assert (spec.display_name, spec.settings) == ("second", [])
    assert not (home / "left.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["unstuck"]


def test_another_kernels_spec_is_replaced_only_when_asked(tmp_path: Path) -> None:
    home = other_kernel(tmp_path)
    before = (home / "kernel.json").read_text()
    with pytest.raises(ConfigError, match="another kernel"):
        install_spec(SpecOptions(), tmp_path)
    assert (home / "kernel.json").read_text() == before
    install_spec(SpecOptions(), tmp_path, replace=True)
    assert [spec.name for spec in installed_specs([tmp_path])] == ["unstuck"]


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot install into .*Not a directory"):
        install_spec(SpecOptions(), kernels_folder(prefix=tmp_path))


def test_a_failed_install_leaves_the_old_spec_and_no_rubbish(tmp_path: Path) -> None:
    install_spec(SpecOptions(), tmp_path)
    with pytest.raises(ConfigError):
        install_spec(SpecOptions(settings=["no_such=1"]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["unstuck"]


def test_only_specs_of_ours_are_listed(tmp_path: Path) -> None:
    other_kernel(tmp_path, "other")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "kernel.json").write_text("{")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "kernel.json").write_text("[]")
    install_spec(SpecOptions(name="steady", env={"A": "1"}, settings=["jedi=false"]), tmp_path)
    [spec] = installed_specs([tmp_path, tmp_path / "missing"])
    assert (spec.name, spec.folder) == ("steady", tmp_path / "steady")
    assert spec.python == Path(sys.executable)
    assert spec.python_exists
    assert (spec.settings, spec.env) == (["jedi=false"], {"A": "1"})


def test_a_spec_knows_which_one_jupyter_takes_instead(tmp_path: Path) -> None:
    first = other_kernel(tmp_path / "first")
    install_spec(SpecOptions(), tmp_path / "second")
    [spec] = installed_specs([tmp_path / "first", tmp_path / "second"])
    assert spec.shadowed_by == first


def test_a_spec_whose_python_was_deleted_says_so(tmp_path: Path) -> None:
    home = install_spec(SpecOptions(), tmp_path)
    fields = json.loads((home / "kernel.json").read_text())
    fields["argv"][0] = str(tmp_path / "gone" / "python")
    (home / "kernel.json").write_text(json.dumps(fields))
    [spec] = installed_specs([tmp_path])
    assert not spec.python_exists


def test_uninstalling_removes_a_linked_spec_and_not_what_it_links_to(tmp_path: Path) -> None:
    home = install_spec(SpecOptions(), tmp_path / "real")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "unstuck").symlink_to(home)
    [spec] = installed_specs([tmp_path / "kernels"])
    uninstall_spec(spec)
    assert not (tmp_path / "kernels" / "unstuck").exists()
    assert (home / "kernel.json").exists()
