"""Subshells (Jupyter enhancement proposal 91): made, listed, used beside a busy shell, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel


def _create(kernel: Kernel) -> str:
    content = kernel.request("create_subshell_request", channel="control").content
    assert content["status"] == "ok"
    return str(content["subshell_id"])


def _delete(kernel: Kernel, subshell: str) -> str:
    request = {"subshell_id": subshell}
    content = kernel.request("delete_subshell_request", request, channel="control").content
    return str(content["status"])


def _list(kernel: Kernel) -> list[str]:
    content = kernel.request("list_subshell_request", channel="control").content
    return list(content["subshell_id"])


def test_subshells_are_created_listed_and_deleted(kernel: Kernel) -> None:
    before = _list(kernel)
    one, two = _create(kernel), _create(kernel)
    assert one != two
    assert sorted(_list(kernel)) == sorted([*before, one, two])
    assert _delete(kernel, one) == "ok"
    assert _delete(kernel, two) == "ok"
    assert _list(kernel) == before


def test_deleting_an_unknown_subshell_is_an_error(kernel: Kernel) -> None:
    assert _delete(kernel, "no-such-subshell") == "error"


def test_a_subshell_runs_beside_a_busy_main_shell(kernel: Kernel) -> None:
    subshell = _create(kernel)
    kernel.run_ok("import time, threading\nshared = 0")
    busy = kernel.execute("print('on')\nwhile not shared: time.sleep(0.01)\nshared")
    kernel.wait_for_text(busy, "on")
    beside = kernel.run_ok(
        "shared = 'set beside'\nprint('beside')", header={"subshell_id": subshell}
    )
    assert beside.stdout == "beside\n"
    assert kernel.finish(busy).value == "'set beside'"
    assert _delete(kernel, subshell) == "ok"


def test_each_subshell_has_its_own_queue(kernel: Kernel) -> None:
    one, two = _create(kernel), _create(kernel)
    kernel.run_ok("import time\ngo = False\nlog = []")
    busy = kernel.execute(
        "while not go: time.sleep(0.01)\nlog.append('one a')", header={"subshell_id": one}
    )
    queued = kernel.execute("log.append('one b')", header={"subshell_id": one})
    kernel.run_ok("log.append('two')\ngo = True", header={"subshell_id": two})
    kernel.finish(busy)
    kernel.finish(queued)
    assert kernel.evaluate("log") == "['two', 'one a', 'one b']"
    assert (_delete(kernel, one), _delete(kernel, two)) == ("ok", "ok")


def test_a_subshell_may_await(kernel: Kernel) -> None:
    subshell = _create(kernel)
    result = kernel.run_ok(
        "import asyncio\nawait asyncio.sleep(0.01)\n'awaited'", header={"subshell_id": subshell}
    )
    assert result.value == "'awaited'"
    assert _delete(kernel, subshell) == "ok"


@ours
def test_an_error_in_a_subshell_aborts_only_its_own_queue(kernel: Kernel) -> None:
    subshell = _create(kernel)
    kernel.run_ok("import time")
    failing = kernel.execute("time.sleep(0.3)\n1/0", header={"subshell_id": subshell})
    behind = kernel.execute("1", header={"subshell_id": subshell})
    main = kernel.execute("'main'")
    assert kernel.finish(failing).status == "error"
    assert kernel.finish(behind).status == "aborted"
    assert kernel.finish(main).value == "'main'"
    assert _delete(kernel, subshell) == "ok"


@ours
def test_an_unknown_subshell_is_an_error_reply(kernel: Kernel) -> None:
    result = kernel.run("1", header={"subshell_id": "no-such-subshell"})
    assert result.status == "error"
    assert "no-such-subshell" in result.content["evalue"]


@ours
def test_subshell_requests_on_shell_are_refused(kernel: Kernel) -> None:
    result = kernel.request("create_subshell_request")
    assert result.status == "error"
