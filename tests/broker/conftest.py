"""Fixtures of the broker's tests: sockets that are bound, and a folder for ipc."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("broker.zmq_clients")

from broker.zmq_clients import Bound, bind, describe  # noqa: E402 - after the rewrite of its asserts

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a path short enough for ipc."""
    made = Path(tempfile.mkdtemp(prefix="us-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def bound(folder: Path) -> Iterator[Bound]:
    with bind(describe("tcp", folder)) as both:
        yield both
