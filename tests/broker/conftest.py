"""Fixtures of the broker's tests: bound sockets, and both ends of the wire."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("broker.zmq_clients", "pump")

from broker.wire_clients import make_session, make_wire  # noqa: E402 - as below
from broker.zmq_clients import Bound, bind, describe  # noqa: E402 - after the rewrite of its asserts
from pump import Pump  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.session import Session

    from unstuck_broker.wire import Wire


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


@pytest.fixture
def wire() -> Wire:
    return make_wire()


@pytest.fixture
def session() -> Session:
    return make_session()


@pytest.fixture
def pump() -> Pump:
    """Give a kernel in memory whose worker is ready."""
    made = Pump()
    made.ready()
    return made
