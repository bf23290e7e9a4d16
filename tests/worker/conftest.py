"""Workers for the tests of their own: real processes, whose broker is the test, or parts of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import comm
import pytest

from plainshell import Record
from unstuck_worker import comms
from worker.broker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unstuck_worker.comms import CommManager


class StartWorker(Protocol):
    """Start a worker that ends with its test."""

    def __call__(self, **options: Any) -> WorkerDouble: ...  # noqa: ANN401


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Give a function that starts workers in a folder of the test."""
    started: list[WorkerDouble] = []

    def start(**options: Any) -> WorkerDouble:  # noqa: ANN401
        worker = WorkerDouble.start(options.pop("cwd", tmp_path), **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


@pytest.fixture(scope="module")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerDouble]:
    """Give one worker for the tests of a file that leave it as it was."""
    worker = WorkerDouble.start(tmp_path_factory.mktemp("cwd"))
    yield worker
    worker.close()


@pytest.fixture
def worker(shared_worker: WorkerDouble) -> WorkerDouble:
    """Give the file's worker, which must be idle."""
    assert shared_worker.process.poll() is None
    return shared_worker


@pytest.fixture
def record() -> Record:
    """Give what notes down all that would go to the broker."""
    return Record()


@pytest.fixture
def manager(record: Record, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommManager]:
    """Install our comms for one test."""
    monkeypatch.setattr(comm, "create_comm", comm.create_comm)
    monkeypatch.setattr(comm, "get_comm_manager", comm.get_comm_manager)
    monkeypatch.setattr(comms.Comm, "manager", None)
    manager = comms.install(record.publish)
    yield manager
    for opened in list(manager.comms.values()):
        opened.close()
