"""Make the restart of a Jupyter server a restart in place: broker, ports and connections stay.

A KernelManager restarts by a shutdown_request with ``restart``, then waits for the process to end,
then launches it again. Under this provisioner the broker takes such a request for a restart of its
worker; the manager is told that the process has ended, and its next launch gives the kernel that is
there. When the broker does not confirm this in time, or is to get other arguments, all goes the
plain way.

Threads: the event loop of the manager; the broker is asked in another thread.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from typing_extensions import override

from unstuck.control import Control, NoAnswer
from unstuck.kernelspec import is_ours

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

CONFIRM_S = 2.0
"""How long the broker may take to say that it restarts."""
END_S = 2.0
"""How long a broker that is of no use any more may take to end before it is killed."""
_LOOK_S = 0.005
_IN_PLACE = ("--set", "restart_in_place=true")


class UnstuckProvisioner(LocalProvisioner):
    """Launch a kernel of ours as a local process, and keep that process over restarts."""

    _launch: dict[str, Any] | None = None
    """The arguments of the process that runs; None where it does not restart in place."""
    _relaunches = 0
    """How many shutdown requests the broker had taken for a restart when we last knew."""
    _kept = False
    """The manager believes that the process has ended: it has restarted in place."""

    # --- launching ------------------------------------------------------------------------------

    @override
    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        prepared = await super().pre_launch(**kwargs)
        # A manager removes the files of ipc sockets between shutdown and launch.
        if is_ours(prepared["cmd"]) and self.connection_info.get("transport") == "tcp":
            prepared["cmd"] = [*prepared["cmd"], *_IN_PLACE]
        return prepared

    @override
    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        wanted = self._describe(cmd, kwargs)
        kept, self._kept = self._kept, False
        if kept and wanted == self._launch and await self.poll() is None:
            self.log.info("Kernel %s was restarted in place", self.kernel_id)
            return self.connection_info
        if kept:
            await self._end()
        self._launch, self._relaunches = wanted, 0
        return await super().launch_kernel(cmd, **kwargs)

    def _describe(self, cmd: list[str], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Take down what a process is launched with; None for one that cannot restart in place."""
        if not is_ours(cmd) or tuple(cmd[-len(_IN_PLACE) :]) != _IN_PLACE:
            return None
        # Launching changes the environment, so that it is copied.
        environment = dict(kwargs.get("env") or {})
        return {**kwargs, "cmd": cmd, "env": environment, "connection": dict(self.connection_info)}

    async def _end(self) -> None:
        """End a kept process: it was restarted with other arguments, or newly chosen ports."""
        for order in (super().terminate, super().kill):
            await order()
            end_s = time.monotonic() + END_S
            while await super().poll() is None and time.monotonic() < end_s:
                await asyncio.sleep(_LOOK_S)
            if await super().poll() is not None:
                await super().wait()
                return

    # --- restarting -----------------------------------------------------------------------------

    @override
    async def shutdown_requested(self, restart: bool = False) -> None:
        """Find out whether the broker has taken the manager's request for a restart in place."""
        await super().shutdown_requested(restart=restart)
        self._kept = False
        if not restart or self._launch is None or await self.poll() is not None:
            return
        info = dict(self.connection_info)
        count = await asyncio.to_thread(_await_relaunch, info, self._relaunches, CONFIRM_S)
        if count is None:
            self.log.warning("Kernel %s does not restart in place", self.kernel_id)
        elif await self.poll() is None:
            self._relaunches = count
            self._kept = True

    @override
    async def poll(self) -> int | None:
        return 0 if self._kept else await super().poll()

    @override
    async def wait(self) -> int | None:
        # To wait for a process that was kept would take for ever, and forget it.
        return 0 if self._kept else await super().wait()

    # --- by force -------------------------------------------------------------------------------

    @override
    async def kill(self, restart: bool = False) -> None:
        self._kept = False
        await super().kill(restart=restart)

    @override
    async def terminate(self, restart: bool = False) -> None:
        self._kept = False
        await super().terminate(restart=restart)

    @override
    async def cleanup(self, restart: bool = False) -> None:
        if self._kept and not restart:  # Nobody will launch it again.
            self._kept = False
            await self._end()
        await super().cleanup(restart=restart)


def _await_relaunch(info: dict[str, Any], known: int, deadline_s: float) -> int | None:
    """Ask the broker until it has taken one more request; None when it does not in time."""
    end_s = time.monotonic() + deadline_s
    with Control(info) as control:
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                state = control.ask("state_request", deadline_s=left_s)
            except NoAnswer:
                return None
            count = state.get("relaunches")
            if not isinstance(count, int):
                return None
            if count > known:
                return count
            time.sleep(_LOOK_S)
    return None
