"""The rules that keep the parts apart: who imports whom, what is pure, what lies where.

The rules are those of docs/architecture.md; a change of theirs is a change here first.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from imports import ALL, PACKAGES, ROOT, closure, modules, read_imports, roots

if TYPE_CHECKING:
    from pathlib import Path

PURE = {
    "unstuck.codec",
    "unstuck.config",
    "unstuck.errors",
    "unstuck.protocol",
    "unstuck.runmode",
    "unstuck.typing",
    "unstuck_broker.account",
    "unstuck_broker.actions",
    "unstuck_broker.backlog",
    "unstuck_broker.comms",
    "unstuck_broker.controlparent",
    "unstuck_broker.copies",
    "unstuck_broker.core",
    "unstuck_broker.echoes",
    "unstuck_broker.events",
    "unstuck_broker.gate",
    "unstuck_broker.hangs",
    "unstuck_broker.interrupts",
    "unstuck_broker.job",
    "unstuck_broker.ladder",
    "unstuck_broker.lifecycle",
    "unstuck_broker.outbox",
    "unstuck_broker.outputs",
    "unstuck_broker.questions",
    "unstuck_broker.reason",
    "unstuck_broker.recovery",
    "unstuck_broker.relay",
    "unstuck_broker.replies",
    "unstuck_broker.report",
    "unstuck_broker.revival",
    "unstuck_broker.rewind",
    "unstuck_broker.served",
    "unstuck_broker.stacktext",
    "unstuck_broker.subshells",
    "unstuck_broker.timers",
    "unstuck_broker.tray",
    "unstuck_broker.trial",
    "unstuck_broker.waiting",
    "unstuck_broker.wire",
    "unstuck_broker.zmtp",
    "unstuck_worker.snapshots.policy",
}
WORLD = {
    "zmq",
    "os",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
    "asyncio",
    "anyio",
    "logging",
    "random",
    "pathlib",
    "psutil",
    "ctypes",
    "select",
}
ZMQ = {"unstuck_broker.sockets", "unstuck_broker.zmqchannel"}
"""The only ones that know zmq."""
NAMES_SIGNALS = {"unstuck_broker.recovery"}
"""Looks up what a signal is called, and nothing else of that module."""
SHARED_WITH_BROKER = {
    "unstuck",
    "unstuck.codec",
    "unstuck.config",
    "unstuck.errors",
    "unstuck.heap",
    "unstuck.lifeline",
    "unstuck.protocol",
    "unstuck.runmode",
    "unstuck.stack",
    "unstuck.templating",
    "unstuck.typing",
    "unstuck.version",
}
NEVER_IN_BROKER = {
    "IPython",
    "cloudpickle",
    "dill",
    "ipykernel",
    "jupyter_client",
    "pickle",
    "shelve",
    "tornado",
    "traitlets",
    "unstuck_worker",
}
LIGHT = {"msgspec", "typing_extensions"}
"""What the modules that broker and worker share may load beside the standard library."""
FRONT_DOOR = ("unstuck.command", "unstuck.headless", "unstuck.__main__", "unstuck.provisioner")
TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "broker",
    "docs",
    "kernel",
    "pyproject.toml",
    "tests",
    "worker",
}
BUILT = {"build", "dist"}
BAD_NAMES = {"base", "common", "helpers", "helper", "manager", "misc", "util"}
MAX_LINES = 500
RUN_S = 60.0
ARCHITECTURE = ROOT / "docs" / "architecture.md"
BROKER, WORKER = modules("unstuck_broker"), modules("unstuck_worker")


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter; list all modules that it has loaded."""
    paths = [str(folder.parent) for folder in PACKAGES.values()]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(list(sys.modules)))"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


# --- who imports whom -----------------------------------------------------------------------------


@pytest.mark.parametrize("module", BROKER)
def test_the_broker_never_imports_what_runs_or_unpickles_user_code(module: str) -> None:
    found = read_imports(module)
    assert not roots(found.ever | found.for_types) & NEVER_IN_BROKER


@pytest.mark.parametrize("module", BROKER)
def test_the_broker_shares_only_light_modules_with_the_worker(module: str) -> None:
    ours = {name for name in read_imports(module).ever if name.partition(".")[0] == "unstuck"}
    assert ours <= SHARED_WITH_BROKER


@pytest.mark.parametrize("module", SHARED_WITH_BROKER)
def test_what_the_broker_shares_is_light(module: str) -> None:
    third_party = {
        root
        for name in closure(module)
        for root in roots(read_imports(name).at_start)
        if root not in sys.stdlib_module_names and root not in PACKAGES
    }
    assert third_party <= LIGHT


@pytest.mark.parametrize("module", sorted(set(BROKER) - ZMQ))
def test_only_the_sockets_know_zmq(module: str) -> None:
    found = read_imports(module)
    assert "zmq" not in roots(found.ever | found.for_types)


@pytest.mark.parametrize("module", WORKER)
def test_the_worker_never_imports_zmq_or_the_broker(module: str) -> None:
    found = read_imports(module)
    assert not roots(found.ever | found.for_types) & {"zmq", "unstuck_broker", "jupyter_client"}


@pytest.mark.parametrize("module", modules("unstuck"))
def test_what_both_share_imports_neither_but_the_front_door_may_lazily(module: str) -> None:
    found = read_imports(module)
    processes = {"unstuck_broker", "unstuck_worker"}
    assert not roots(found.at_start) & processes
    if not module.startswith(FRONT_DOOR):
        assert not roots(found.ever | found.for_types) & processes


def test_the_whole_broker_loads_nothing_that_it_must_not() -> None:
    names = [name for name in BROKER if not name.endswith("__main__")]
    loaded = loaded_by("import " + ", ".join(names))
    assert not {name.partition(".")[0] for name in loaded} & (NEVER_IN_BROKER - {"pickle"})
    assert not {name for name in loaded if name.startswith("unstuck.")} - SHARED_WITH_BROKER


def test_the_whole_worker_loads_no_zmq() -> None:
    names = [name for name in WORKER if not name.endswith("__main__")]
    loaded = loaded_by("import " + ", ".join(names))
    assert not {name.partition(".")[0] for name in loaded} & {"zmq", "unstuck_broker"}


def test_importing_the_package_loads_nothing_but_itself() -> None:
    loaded = loaded_by("import unstuck") - loaded_by("")
    added = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert added == {"unstuck", "unstuck.version"}


def test_the_reader_of_imports_sees_when_they_happen() -> None:
    sockets, connection = map(read_imports, ("unstuck_broker.sockets", "unstuck_broker.connection"))
    assert "zmq" in sockets.at_start
    assert "unstuck_broker.connection" in sockets.for_types - sockets.ever
    assert "jupyter_core.paths" in connection.lazily - connection.at_start
    assert "unstuck.typing" in closure("unstuck_broker.core")


# --- what is pure ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_does_not_touch_the_world(module: str) -> None:
    allowed = {"signal"} if module in NAMES_SIGNALS else set[str]()
    assert not roots(read_imports(module).ever) & WORLD - allowed


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_uses_only_pure_ones(module: str) -> None:
    ours = {name for name in read_imports(module).ever if name.partition(".")[0] in PACKAGES}
    assert ours <= PURE | {"unstuck", "unstuck_broker"}


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_opens_prints_evaluates_and_awaits_nothing(module: str) -> None:
    calls: set[str] = set()
    for node in ast.walk(ast.parse(ALL[module].read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.Global)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            calls.add(node.func.id)
    assert not calls & {"open", "print", "input", "exec", "eval", "breakpoint"}


def test_the_core_and_all_that_it_uses_are_on_the_list_of_pure_modules() -> None:
    used = closure("unstuck_broker.core") - {"unstuck", "unstuck.version", "unstuck_broker"}
    assert used <= PURE


# --- what lies where ------------------------------------------------------------------------------


def test_nothing_else_lies_at_the_top_of_the_tree() -> None:
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - BUILT <= TOP_LEVEL


@pytest.mark.parametrize("package", PACKAGES)
def test_a_process_is_a_folder_with_one_typed_package(package: str) -> None:
    folder = PACKAGES[package]
    assert (folder / "py.typed").is_file()
    assert (folder / "__init__.py").is_file()
    beside = {path.name for path in folder.parent.iterdir()} - {"__pycache__"}
    assert beside == {package}


@pytest.mark.parametrize("module", ALL)
def test_a_module_is_a_noun_and_no_drawer(module: str) -> None:
    assert module.rpartition(".")[2] not in BAD_NAMES


@pytest.mark.parametrize("module", ALL)
def test_a_module_can_be_read_in_one_go(module: str) -> None:
    assert len(ALL[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", ALL)
def test_a_module_says_what_it_is_for(module: str) -> None:
    assert re.match(r'r?"""\S', ALL[module].read_text(encoding="utf-8"))


# --- what the documentation names -----------------------------------------------------------------


def named_in(text: str) -> tuple[set[Path], list[str]]:
    """Find the files of ours that a text names, and what it names that is no file.

    A bare ``name.py`` lies in the folder named last before it, or is the only one of its name.
    """
    named: set[Path] = set()
    unknown: list[str] = []
    tests = [*(ROOT / "tests").rglob("*.py")]
    folders = {path.parent for path in [*ALL.values(), *tests]}
    folder = ROOT
    for match in re.finditer(r"(?P<file>[\w./]*\w\.py)\b|(?P<folder>[\w.]+(?:/[\w.]+)*)/", text):
        if match["folder"]:
            fitting = [path for path in folders if f"{path}".endswith(f"/{match['folder']}")]
            folder = fitting[0] if len(fitting) == 1 else folder
            continue
        ending = f"/{match['file']}"
        fitting = [path for path in [*ALL.values(), *tests] if f"{path}".endswith(ending)]
        chosen = [path for path in fitting if path == folder / match["file"]] or fitting
        if len(chosen) == 1:
            named.add(chosen[0])
        else:
            unknown.append(match["file"])
    return named, unknown


def test_the_reader_of_the_documentation_finds_files_by_their_folder() -> None:
    named, unknown = named_in(
        "`broker/unstuck_broker/`: `lane.py`, `wire.py`, then unstuck_worker/lane.py and caller.py;"
        " `worker/unstuck_worker/` has `stdin.py` and `no_such.py`."
    )
    assert {path.relative_to(ROOT).as_posix() for path in named} == {
        "broker/unstuck_broker/lane.py",
        "broker/unstuck_broker/wire.py",
        "worker/unstuck_worker/lane.py",
        "kernel/unstuck/caller.py",
        "worker/unstuck_worker/stdin.py",
    }
    assert unknown == ["no_such.py"]


@pytest.mark.skipif(not ARCHITECTURE.exists(), reason="docs/architecture.md is not written yet")
def test_every_file_that_the_documentation_names_exists() -> None:
    _, unknown = named_in(ARCHITECTURE.read_text(encoding="utf-8"))
    assert unknown == []


@pytest.mark.skipif(not ARCHITECTURE.exists(), reason="docs/architecture.md is not written yet")
def test_the_documentation_names_every_module() -> None:
    named, _ = named_in(ARCHITECTURE.read_text(encoding="utf-8"))
    expected = {path for path in ALL.values() if path.name != "__init__.py"}
    assert sorted(path.relative_to(ROOT).as_posix() for path in expected - named) == []
