"""A promoted copy is the worker: everything that a session has goes on in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("worker.copies_double")

from worker.copies_double import SnapshotDouble  # noqa: E402 - after the rewrite of its asserts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[SnapshotDouble]:
    """Give a worker whose copies come to the test."""
    worker = SnapshotDouble.start(tmp_path)
    yield worker
    worker.close()


def test_an_idle_worker_has_a_copy_that_has_its_variables(worker: SnapshotDouble) -> None:
    worker.run("x = [1, 2]; here = id(x)")
    copy = worker.wait_for_copy()
    assert (copy.ready.kind, copy.ready.lost, copy.ready.cell) == ("promotable", [], 1)
    worker.recover()
    assert worker.run_after("(x, id(x) == here)").result == "([1, 2], True)"
