"""New threads with a Caller: their names, backends and errors."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from kernel.callers import BACKENDS, DEADLINE_S, both, run, run_with_caller, wait_until, where
from unstuck.caller import Caller

if TYPE_CHECKING:
    from unstuck.typing import Backend

pytestmark = pytest.mark.usefixtures("nothing_left")


def run_python(code: str) -> str:
    """Run code in a new interpreter; give what it printed."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env=env
    ).stdout


@both
def test_a_new_caller_runs_in_a_daemon_thread_of_the_known_name(backend: Backend) -> None:
    caller = Caller.start_new(backend=backend)
    assert caller.running
    assert caller.backend == backend
    assert caller.thread.daemon
    assert re.fullmatch(r"Thread-\d+ \(anyio_run_caller\)", caller.thread.name)
    assert repr(caller) == f"Caller<{caller.thread.name}>"


@both
def test_a_new_caller_has_the_backend_of_the_loop_that_starts_it(backend: Backend) -> None:
    async def main() -> None:
        assert Caller.start_new().backend == backend

    run(backend, main)
    assert Caller.start_new().backend == "asyncio"


def test_options_reach_the_event_loop() -> None:
    caller = Caller.start_new(backend="asyncio", backend_options={"debug": True})

    def is_debug() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert caller.call_soon(is_debug).wait_sync(timeout=DEADLINE_S)


def test_wrong_options_are_an_error_of_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match=r"Caller<odd> could not be started"):
        Caller.start_new(name="odd", backend="asyncio", backend_options={"loop_factory": "none"})
    assert "is not callable" in caplog.text


def test_an_unknown_backend_is_an_error() -> None:
    unknown: Any = "curio"
    with pytest.raises(ValueError, match="unknown backend 'curio': it is asyncio or trio"):
        Caller.start_new(backend=unknown)


def test_a_backend_that_is_not_installed_is_an_error_that_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['trio'] = None\n"
        "from unstuck.caller import Caller\n"
        "try: Caller.start_new(backend='trio')\n"
        "except ModuleNotFoundError as error: print(error.name, '|', error)\n"
        "print(Caller.start_new().call_soon(lambda: 'asyncio works').wait_sync(timeout=30))"
    )
    assert run_python(code).splitlines() == [
        "trio | the backend 'trio' is not installed: pip install trio",
        "asyncio works",
    ]


def test_a_name_belongs_to_one_caller() -> None:
    caller = Caller.start_new(name="mine", backend="asyncio")
    with pytest.raises(RuntimeError, match="Caller<mine> exists already"):
        Caller.start_new(name="mine", backend="asyncio")
    caller.stop()
    assert Caller.start_new(name="mine", backend="asyncio") is not caller


@both
def test_an_instance_is_found_by_the_name_of_its_thread(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        assert Caller.get_instance() is caller
        assert Caller.get_instance("MainThread") is caller
        with pytest.raises(RuntimeError, match="Caller<other> does not exist"):
            Caller.get_instance("other")
        other = Caller.get_instance("other", create=True)
        assert other is not caller
        assert Caller.get_instance("other") is other

    run_with_caller(backend, main)


def test_the_main_threads_caller_is_never_started() -> None:
    for ask in (
        lambda: Caller.get_instance("MainThread", create=True),
        lambda: Caller.to_thread_by_name("MainThread", where),
        lambda: Caller.get(name="MainThread"),
    ):
        with pytest.raises(RuntimeError, match="Caller<MainThread> does not exist"):
            ask()


def test_many_threads_that_ask_for_one_name_get_one_caller() -> None:
    gate = threading.Barrier(6)
    found: list[Caller] = []

    def ask() -> None:
        gate.wait(DEADLINE_S)
        found.append(Caller.get_instance("shared", create=True))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(found) == 6
    assert len(set(found)) == 1


@both
def test_get_gives_a_caller_by_name_or_a_new_one(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        named = Caller.get(name="named")
        assert Caller.get(name="named") is named
        assert caller.get(name="named") is named
        assert named.backend == backend
        assert Caller.get() is not Caller.get()
        other: Backend = "trio" if backend == "asyncio" else "asyncio"
        assert Caller.get(name="other", backend=other).backend == other
        with pytest.raises(RuntimeError, match=f"Caller<other> runs {other}, not {backend}"):
            Caller.get(name="other", backend=backend)

    run_with_caller(backend, main)


def test_a_caller_got_from_another_stops_with_it() -> None:
    parent = Caller.start_new(backend="asyncio")
    child = parent.get(name="child")
    stranger = Caller.get(name="stranger")
    parent.stop()
    wait_until(lambda: not child.thread.is_alive(), "the child has stopped")
    assert stranger.running


@both
def test_a_call_can_ask_for_another_backend(backend: Backend) -> None:
    async def main(caller: Caller) -> None:
        for wanted in BACKENDS:
            seen = await caller.call_using_backend(wanted, lambda: (where(), Caller().backend))
            own = wanted == backend
            assert seen == ("MainThread" if own else f"MainThread ({wanted})", wanted)

    run_with_caller(backend, main)


def test_importing_the_caller_imports_no_event_loop() -> None:
    code = (
        "import sys; import unstuck.caller, unstuck.utils; "
        "print([m for m in ('asyncio', 'anyio', 'trio', 'zmq', 'IPython') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"
