"""A worker with snapshots for each test: its copies come to the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.copies_double import SnapshotDouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[SnapshotDouble]:
    """Give a worker whose copies come to the test."""
    worker = SnapshotDouble.start(tmp_path)
    yield worker
    worker.close()
