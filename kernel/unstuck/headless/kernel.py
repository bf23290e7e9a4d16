"""A kernel for one notebook: from a kernelspec in memory or on disk; gone when the block ends."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from typing_extensions import override

from unstuck.config import parse_settings
from unstuck.errors import ConfigError, KernelError
from unstuck.headless.outputs import OutputChannel
from unstuck.headless.replies import ReplyChannel
from unstuck.kernelspec import DEFAULT_NAME, RESOURCES, SpecOptions, is_ours, make_spec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    from unstuck.headless.stop import StopRequest

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
INFO_DEADLINE_S = 10.0
LADDER_MARGIN_S = 3.0
"""Beyond the grace of our interrupt ladder: killing, recovering, replying."""
LOG_LINES = 20
LOG_BYTES = 1 << 16

# Nobody is there who could interrupt twice, page through the history, or go on after a death.
HEADLESS_SETTINGS = ("interrupt_policy=always", "history=false", "snapshots=off")


class KernelStartError(KernelError):
    """The kernel did not answer; the message ends with what it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelChoice:
    """Which kernel runs a notebook, and how it is set."""

    name: str | None = None
    """An installed kernelspec; None is unstuck in this Python, which needs no installing."""
    settings: Sequence[str] = ()
    cell_timeout_s: float | None = None
    """For each cell that sets none itself; ours keeps it by itself, and says where a cell hung."""

    def all_settings(self) -> list[str]:
        """List the settings for a kernel of ours; the last of a name counts."""
        limit = [] if self.cell_timeout_s is None else [f"cell_timeout_s={self.cell_timeout_s}"]
        return [*HEADLESS_SETTINGS, *self.settings, *limit]


class OneSpecManager(KernelSpecManager):
    """Know one kernelspec that is on no disk."""

    spec: KernelSpec

    @override
    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return self.spec


class CellClient(AsyncKernelClient):
    """Send a cell's metadata with its code, as JupyterLab does: tags and timeouts live there."""

    cell_metadata: Mapping[str, Any] = MappingProxyType({})
    """Of the cell that is sent next."""
    sent_id: str = ""
    """The request of the cell that was sent last."""

    @override
    def execute(  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
        self, code: str, *, store_history: bool = True, stop_on_error: bool = True
    ) -> str:
        """Send one cell; nobody is there to answer its ``input()``."""
        content = {
            "code": code,
            "silent": False,
            "store_history": store_history,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": stop_on_error,
        }
        message = self.session.msg("execute_request", content, metadata=dict(self.cell_metadata))
        self.shell_channel.send(message)
        self.sent_id = str(message["header"]["msg_id"])
        return self.sent_id


def find_spec(choice: KernelChoice) -> KernelSpec:
    """Make or find the kernelspec of a choice.

    Raises:
        ConfigError: no such kernelspec, bad settings, or settings for a kernel that is not ours.
    """
    settings = choice.all_settings()
    if choice.name is None:
        fields = make_spec(SpecOptions(settings=settings))
        return KernelSpec(name=DEFAULT_NAME, resource_dir=str(RESOURCES), **fields)
    try:
        spec = KernelSpecManager().get_kernel_spec(choice.name)
    except NoSuchKernel:
        raise ConfigError(
            f"there is no kernelspec {choice.name!r}: 'jupyter kernelspec list' shows what there"
            " is, and without --kernel unstuck itself runs the notebook"
        ) from None
    if is_ours(spec.argv):
        make_spec(SpecOptions(settings=settings))
        spec.argv = [*spec.argv, *(word for pair in settings for word in ("--set", pair))]
    elif choice.settings:
        raise ConfigError(f"--set is for unstuck, and {choice.name!r} is another kernel")
    return spec


@dataclass(frozen=True, slots=True)
class HeadlessKernel:
    """A running kernel and the client that talks to it."""

    manager: AsyncKernelManager
    client: CellClient
    log: IO[bytes]
    overtime_s: float
    """How much later than at its limit a cell's reply may come: ours ends the cell by itself."""

    @property
    def outputs(self) -> OutputChannel:
        """The channel on which the outputs come."""
        channel = self.client.iopub_channel
        assert isinstance(channel, OutputChannel)
        return channel

    def log_tail(self) -> list[str]:
        """Give the last lines that the kernel's process itself wrote."""
        # The kernel's processes write at the same file position: reading must not move it.
        data = os.pread(self.log.fileno(), LOG_BYTES, max(0, _size(self.log) - LOG_BYTES))
        return data.decode(errors="replace").splitlines()[-LOG_LINES:]

    async def exit_status(self) -> str:
        """Say how the kernel's process ended."""
        provisioner = self.manager.provisioner
        code = await provisioner.poll() if provisioner is not None else None
        if code is None:
            return "its process still runs"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    async def language_info(self) -> dict[str, Any]:
        """Ask the kernel about its language, as a notebook's metadata stores it."""
        # jupyter_client adds the two parameters at run time, where no type checker sees them.
        kernel_info: Any = self.client.kernel_info
        reply = await kernel_info(reply=True, timeout=INFO_DEADLINE_S)
        return dict(reply["content"]["language_info"])

    async def interrupt(self) -> None:
        """Ask the kernel to interrupt the running cell."""
        await self.manager.interrupt_kernel()

    async def kill(self) -> None:
        """End the kernel at once."""
        await asyncio.wait_for(self.manager.shutdown_kernel(now=True), STOP_DEADLINE_S)


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _overtime_s(choice: KernelChoice, spec: KernelSpec) -> float:
    if not is_ours(spec.argv):
        return 0.0
    return parse_settings(choice.all_settings()).interrupt_grace_s + LADDER_MARGIN_S


@asynccontextmanager
async def running_kernel(
    choice: KernelChoice,
    folder: Path,
    stop: StopRequest,
    *,
    start_deadline_s: float = START_DEADLINE_S,
) -> AsyncGenerator[HeadlessKernel]:
    """Start a kernel in ``folder`` and end it, whatever happens in between.

    Raises:
        ConfigError: the choice names no kernel.
        KernelStartError: the kernel ended, or did not answer in time.
    """
    spec = find_spec(choice)
    specs = OneSpecManager()
    specs.spec = spec
    manager = AsyncKernelManager(kernel_name=choice.name or DEFAULT_NAME, kernel_spec_manager=specs)
    manager.client_factory = CellClient
    with tempfile.TemporaryFile() as log:
        try:
            await _launch(manager, folder, log)
            client = manager.client()
            assert isinstance(client, CellClient)
            client.iopub_channel_class = OutputChannel
            client.shell_channel_class = ReplyChannel
            client.start_channels(hb=False)
            kernel = HeadlessKernel(manager, client, log, _overtime_s(choice, spec))
            try:
                await _wait_until_ready(kernel, stop, start_deadline_s)
                yield kernel
            finally:
                client.stop_channels()
        finally:
            await _shut_down(manager)


async def _launch(manager: AsyncKernelManager, folder: Path, log: IO[bytes]) -> None:
    try:
        await manager.start_kernel(cwd=str(folder), stdout=log, stderr=log)
    except (OSError, RuntimeError) as error:
        raise KernelStartError(f"the kernel cannot be started: {error}") from error


async def _wait_until_ready(kernel: HeadlessKernel, stop: StopRequest, deadline_s: float) -> None:
    ready = asyncio.ensure_future(kernel.client.wait_for_ready(timeout=deadline_s))
    if not await stop.watch(ready, None):
        ready.cancel()
        raise KernelStartError("the run was stopped before the kernel was ready")
    try:
        await ready
    except RuntimeError as error:
        lines = "".join(f"\n  {line}" for line in kernel.log_tail())
        wrote = f"; it wrote:{lines}" if lines else ""
        raise KernelStartError(f"the kernel did not start: {error}{wrote}") from None


async def _shut_down(manager: AsyncKernelManager) -> None:
    """Ask, then insist: jupyter_client ends with SIGKILL to the process group."""
    if not manager.has_kernel:
        await manager.cleanup_resources()
        return
    try:
        await asyncio.wait_for(manager.shutdown_kernel(), STOP_DEADLINE_S)
    except TimeoutError:
        await asyncio.wait_for(manager.shutdown_kernel(now=True), STOP_DEADLINE_S)
