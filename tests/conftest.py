"""Fixtures for every test: private folders, kernels with deadlines, and nothing left behind."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest

pytest.register_assert_rewrite(
    "e2e.kernel_client",
    "e2e.result",
    "e2e.snapshots",
    "worker.broker_double",
    "worker.copies_double",
)

from e2e.kernel_client import Kernel  # noqa: E402 - after the rewrite of its asserts
from e2e.spec import KERNEL, OURS, spec_for_tests, write_spec  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from jupyter_client.manager import KernelManager

SESSION_MARK = "UNSTUCK_TEST_SESSION"
LEFTOVER_WAIT_S = 10.0


class StartKernel(Protocol):
    """Start a kernel that ends with the test or module that started it."""

    def __call__(
        self,
        name: str = ...,
        *,
        settings: Sequence[str] = ...,
        options: Sequence[str] = ...,
        cwd: Path | None = ...,
        env: dict[str, str] | None = ...,
        prepare: Callable[[KernelManager], None] | None = ...,
    ) -> Kernel: ...


def _ours(mark: str) -> list[psutil.Process]:
    """List our processes that inherited this session's mark."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            is_marked = process.environ().get(SESSION_MARK) == mark
            command = " ".join(process.cmdline())
        except (psutil.Error, OSError):
            continue
        if is_marked and ("unstuck_broker" in command or "unstuck_worker" in command):
            found.append(process)
    return found


@pytest.fixture(scope="session", autouse=True)
def private_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's files out of all tests; at the end no process of ours is left."""
    folder = tmp_path_factory.mktemp("jupyter")
    mark = str(uuid.uuid4())
    values = {
        SESSION_MARK: mark,
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_PATH": str(folder / "path"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    for name in ("config", "data", "runtime", "path", "ipython"):
        (folder / name).mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        patch.delenv("MPLBACKEND", raising=False)
        yield folder
        end = time.monotonic() + LEFTOVER_WAIT_S
        while (left := _ours(mark)) and time.monotonic() < end:
            psutil.wait_procs(left, timeout=0.2)
        described = [f"{p.pid}: {' '.join(p.cmdline())}" for p in left if p.is_running()]
        for process in left:
            process.kill()
        assert not described, f"processes of this session are left: {described}"


@pytest.fixture(scope="session")
def kernel_name(private_folders: Path) -> str:
    """Name the kernelspec under test; ours is written for this session, not installed."""
    if KERNEL == OURS:
        write_spec(private_folders / "path", OURS, spec_for_tests())
    return KERNEL


def _starter(kernel_name: str, folder: Path) -> Iterator[StartKernel]:
    """Give a function that starts kernels, and end them afterwards."""
    started: list[Kernel] = []

    def start(
        name: str = kernel_name,
        *,
        settings: Sequence[str] = (),
        options: Sequence[str] = (),
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        prepare: Callable[[KernelManager], None] | None = None,
    ) -> Kernel:
        arguments = [part for setting in settings for part in ("--set", setting)]
        log = folder / f"kernel-{len(started)}.log"
        kernel = Kernel.start(
            name,
            log,
            cwd=cwd,
            env=env,
            extra_arguments=[*arguments, *options],
            prepare=prepare,
        )
        started.append(kernel)
        return kernel

    yield start
    for kernel in started:
        kernel.close()


@pytest.fixture
def start_kernel(kernel_name: str, tmp_path: Path) -> Iterator[StartKernel]:
    """Start kernels that one test may break."""
    yield from _starter(kernel_name, tmp_path)


@pytest.fixture
def fresh_kernel(start_kernel: StartKernel) -> Kernel:
    """Give one kernel to one test that may break it."""
    return start_kernel()


class Shared:
    """The kernel of a module's tests; one that a test has left busy or dead is replaced."""

    def __init__(self, start: StartKernel, settings: Sequence[str] = ()) -> None:
        """Start it, with these settings, when it is first wanted."""
        self._start = start
        self._settings = settings
        self._kernel: Kernel | None = None

    def take(self) -> Kernel:
        """Give a kernel that waits for requests."""
        if self._kernel is None or not self._kernel.is_idle:
            self._kernel = self._start(settings=self._settings)
        self._kernel.forget()
        return self._kernel


@pytest.fixture(scope="module")
def shared(
    kernel_name: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Shared]:
    """Run one kernel for a module's tests, with the ``SETTINGS`` that the module may name."""
    starter = _starter(kernel_name, tmp_path_factory.mktemp("kernel"))
    yield Shared(next(starter), getattr(request.module, "SETTINGS", ()))
    next(starter, None)


@pytest.fixture
def kernel(shared: Shared) -> Iterator[Kernel]:
    """Give the module's kernel, free of what the last test left behind."""
    kernel = shared.take()
    yield kernel
    assert kernel.is_alive, f"the kernel died:\n{kernel.log_text}"
