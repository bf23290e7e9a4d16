"""``%rewind`` and named snapshots: going back, as far as is said and no further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.snapshots import ON_LINUX, account, rows, wait_for_snapshot

if TYPE_CHECKING:
    from conftest import StartKernel
    from e2e.kernel_client import Kernel

pytestmark = ON_LINUX

SETTINGS = ("interrupt_hard_s=0.2", "interrupt_grace_s=0.5", "memory_bytes=700000000")


def test_a_rewind_undoes_the_last_cell(kernel: Kernel) -> None:
    kernel.run_ok("x = [1]")
    wait_for_snapshot(kernel)
    kernel.run_ok("x.append(2)")
    wait_for_snapshot(kernel)
    result = kernel.run_ok("%rewind")
    assert "Going back to after cell" in result.stdout
    assert account(result)["is_rewind"]
    assert kernel.evaluate("x") == "[1]"


def test_a_rewind_goes_to_a_name_and_back_to_another(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.run_ok("x = 'clean'")
    kernel.run_ok("%snapshot clean")
    kernel.wait(lambda: any("clean" in row for row in rows(kernel)), "named snapshot")
    kernel.run_ok("x = 'trained'")
    kernel.run_ok("import unstuck; unstuck.snapshot('trained')")
    kernel.wait(lambda: any("trained" in row for row in rows(kernel)), "named snapshot")
    kernel.run_ok("x = 'broken'")
    kernel.run_ok("%rewind clean")
    assert kernel.evaluate("x") == "'clean'"
    kernel.run_ok("%rewind trained")
    assert kernel.evaluate("x") == "'trained'"


@pytest.mark.parametrize("library", ["", "polars"])
def test_a_rewind_goes_to_a_name_again_and_again(start_kernel: StartKernel, library: str) -> None:
    kernel = start_kernel(settings=SETTINGS)
    if library:
        pytest.importorskip(library)
        kernel.run_ok("import polars as pl; pl.DataFrame({'a': [1]}).filter(pl.col('a') > 0)")
    kernel.run_ok("x = 'clean'\n%snapshot clean")
    for attempt in range(3):
        kernel.wait(lambda: any("clean" in row for row in rows(kernel)), "named snapshot")
        kernel.run_ok(f"x = {attempt}")
        told = account(kernel.run_ok("%rewind clean"))
        is_donor = library and attempt == 0  # Later nothing has used it.
        assert told["way"] == ("transplant" if is_donor else "promotion")
        assert kernel.evaluate("x") == "'clean'"


def test_a_name_that_is_no_string_costs_nothing(kernel: Kernel) -> None:
    kernel.run_ok("import unstuck; x = 5")
    for wrong in ("None", "5"):
        assert kernel.run(f"unstuck.snapshot({wrong})").content["ename"] == "TypeError"
    assert kernel.evaluate("x") == "5"


def test_a_rewind_to_a_name_that_is_not_there_changes_nothing(kernel: Kernel) -> None:
    kernel.run_ok("x = 5")
    result = kernel.run("%rewind nowhere")
    assert "there is no snapshot 'nowhere'" in result.stderr + str(result.content)
    assert kernel.evaluate("x") == "5"


def test_cells_behind_a_rewind_run_in_the_old_state(kernel: Kernel) -> None:
    kernel.run_ok("x = 1")
    wait_for_snapshot(kernel)
    kernel.run_ok("x = 2")
    wait_for_snapshot(kernel)
    rewinding = kernel.execute("%rewind")
    behind = kernel.execute("x")
    assert kernel.finish(rewinding).status == "ok"
    assert kernel.finish(behind).value == "1"
