"""The provisioner: a manager's restart is a restart in place, and the plain way stays open."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from e2e.kernel_client import Kernel
from e2e.spec import spec_for_tests, write_spec
from imports import ROOT
from kernel.commands import HANG, record_of, wait_for, worker_of
from unstuck.kernelspec import SpecOptions, make_spec
from unstuck.provisioner import UnstuckProvisioner

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

NAME = "unstuck-in-place"
OWN_PROVISIONER = {"provisioner_name": "unstuck"}


@pytest.fixture(scope="module")
def provisioned(private_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give a kernelspec with our provisioner, registered as an installed package registers it."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    group = KernelProvisionerFactory.GROUP_NAME
    site = tmp_path_factory.mktemp("site")
    info = site / "unstuck_for_tests-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unstuck-for-tests\nVersion: 1\n")
    points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"][group].items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}")
    spec = spec_for_tests()
    spec["metadata"]["kernel_provisioner"] = dict(OWN_PROVISIONER)
    write_spec(private_folders / "path", NAME, spec)
    KernelProvisionerFactory.clear_instance()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield NAME
    KernelProvisionerFactory.clear_instance()


@contextmanager
def run(
    name: str, folder: Path, prepare: Callable[[KernelManager], None] = lambda _: None
) -> Generator[Kernel]:
    """Run a kernel that may be restarted: its log stays open for the next process."""
    manager = KernelManager(kernel_name=name)
    prepare(manager)
    log = folder / "kernel.log"
    environment = {**os.environ}
    # ipykernel leaves fd 1 and 2 alone where it sees this.
    environment.pop("PYTEST_CURRENT_TEST", None)
    with log.open("wb") as stderr:
        manager.start_kernel(cwd=str(folder), stderr=stderr, env=environment)
        kernel = Kernel(manager, log)
        # jupyter_client gives a client its manager's session, and so the same message ids.
        kernel.session.session = str(uuid.uuid4())
        try:
            kernel.wait_until_ready()
            yield kernel
        finally:
            kernel.client.stop_channels()
            if manager.has_kernel:
                manager.shutdown_kernel(now=not kernel.is_alive)


@pytest.fixture
def kernel(provisioned: str, tmp_path: Path) -> Iterator[Kernel]:
    """Run a kernel under the provisioner."""
    with run(provisioned, tmp_path) as kernel:
        yield kernel


def provisioner_of(manager: KernelManager) -> UnstuckProvisioner:
    provisioner = manager.provisioner
    assert isinstance(provisioner, UnstuckProvisioner)
    return provisioner


def states(kernel: Kernel) -> list[str]:
    """List the states that belong to no request of this client."""
    found = [m for m in kernel.strays if m["header"]["msg_type"] == "status"]
    return [str(m["content"]["execution_state"]) for m in found]


def restart(kernel: Kernel, **options: Any) -> None:  # noqa: ANN401 - the manager's
    """Restart as JupyterLab's server does."""
    kernel.manager.restart_kernel(**options)


# --- in place -------------------------------------------------------------------------------------


def test_a_restart_keeps_the_broker_its_ports_and_its_clients(kernel: Kernel) -> None:
    kernel.run_ok("x = 1")
    pid, ports, worker = kernel.pid, kernel.manager.ports, worker_of(kernel)
    restart(kernel)
    assert (kernel.pid, kernel.manager.ports) == (pid, ports)
    assert kernel.is_alive
    assert kernel.manager.is_alive()
    assert kernel.run("x").content["ename"] == "NameError"
    assert worker_of(kernel) != worker


def test_frontends_see_the_restart_and_who_has_asked_for_it(kernel: Kernel) -> None:
    kernel.run_ok("1")
    restart(kernel)
    kernel.wait(
        lambda: "starting" in states(kernel) and states(kernel)[-1] == "idle",
        "idle after the restart",
    )
    seen = [state for state in states(kernel) if state not in ("busy", "idle")]
    assert seen == ["restarting", "starting"]
    [told] = [m for m in kernel.strays if m["content"].get("execution_state") == "restarting"]
    # JupyterLab shows no "appears to have died" for a status that a shutdown request has caused.
    assert told["parent_header"]["msg_type"] == "shutdown_request"
    [reply] = [m for m in kernel.strays if m["header"]["msg_type"] == "shutdown_reply"]
    assert reply["content"] == {"status": "ok", "restart": True}


def test_a_hung_cell_does_not_prevent_it(kernel: Kernel) -> None:
    cell = kernel.execute(HANG)
    waiting = kernel.execute("1")
    wait_for(lambda: bool(record_of(kernel)["running"]), "running cell")
    pid = kernel.pid
    start_s = time.monotonic()
    restart(kernel)
    assert time.monotonic() - start_s < 5.0
    assert kernel.pid == pid
    assert kernel.finish(cell).error["ename"] == "KernelRestarted"
    assert kernel.finish(waiting).status == "aborted"
    kernel.run_ok("1")


def test_restarts_follow_each_other(kernel: Kernel) -> None:
    pid = kernel.pid
    for number in range(3):
        kernel.run_ok(f"x{number} = 1")
        restart(kernel)
        assert kernel.run(f"x{number}").status == "error"
    assert kernel.pid == pid


def test_a_restart_by_another_way_in_between_does_not_count(kernel: Kernel) -> None:
    pid = kernel.pid
    kernel.request("restart_request", channel="control")
    kernel.run_ok("x = 1")
    restart(kernel)
    assert kernel.pid == pid
    assert kernel.run("x").status == "error"


def test_a_shutdown_after_a_restart_ends_everything(kernel: Kernel) -> None:
    restart(kernel)
    kernel.run_ok("1")
    tree = kernel.tree
    kernel.close()
    assert not kernel.manager.has_kernel
    _, left = psutil.wait_procs(tree, timeout=10.0)
    assert left == []


def test_a_restart_that_nobody_finishes_leaves_nothing_behind(kernel: Kernel) -> None:
    tree = kernel.tree
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(restart=True)
    assert not kernel.manager.is_alive()
    kernel.manager.cleanup_resources(restart=False)
    _, left = psutil.wait_procs(tree, timeout=10.0)
    assert left == []


def test_an_async_manager_restarts_in_place(provisioned: str, tmp_path: Path) -> None:
    async def live() -> None:
        manager = AsyncKernelManager(kernel_name=provisioned)
        await manager.start_kernel(cwd=str(tmp_path))
        client = manager.client()
        client.start_channels(hb=False)
        try:
            await client.wait_for_ready(timeout=30)
            pid = provisioner_of(manager).pid
            await _run(client, "x = 1")
            await manager.restart_kernel()
            assert provisioner_of(manager).pid == pid
            assert await manager.is_alive()
            assert (await _run(client, "x"))["ename"] == "NameError"
        finally:
            client.stop_channels()
            await manager.shutdown_kernel()

    asyncio.run(asyncio.wait_for(live(), 60.0))


async def _run(client: Any, code: str) -> dict[str, Any]:  # noqa: ANN401 - typed in part only
    reply = await client.execute_interactive(code, timeout=20, output_hook=lambda _: None)
    return dict(reply["content"])


def test_a_jupyter_server_restarts_in_place(provisioned: str, tmp_path: Path) -> None:
    kernelmanager = pytest.importorskip("jupyter_server.services.kernels.kernelmanager")

    async def live() -> None:
        kernels = kernelmanager.AsyncMappingKernelManager(root_dir=str(tmp_path))
        kernel_id = await kernels.start_kernel(kernel_name=provisioned)
        try:
            manager = kernels.get_kernel(kernel_id)
            pid = provisioner_of(manager).pid
            answered = await kernels.restart_kernel(kernel_id)
            await asyncio.wait_for(answered, 20.0)
            assert provisioner_of(manager).pid == pid
            assert psutil.pid_exists(pid or 0)
        finally:
            await kernels.shutdown_kernel(kernel_id)
        assert not psutil.pid_exists(pid or 0)

    asyncio.run(asyncio.wait_for(live(), 60.0))


# --- the plain way --------------------------------------------------------------------------------


def test_a_forced_restart_replaces_the_broker(kernel: Kernel) -> None:
    pid = kernel.pid
    restart(kernel, now=True)
    kernel.wait_until_ready()
    assert kernel.pid != pid
    assert not psutil.pid_exists(pid)


def _choose_ports(manager: KernelManager) -> None:
    manager.cache_ports = False  # Cached ones stay the same.


def test_new_ports_replace_the_broker(provisioned: str, tmp_path: Path) -> None:
    with run(provisioned, tmp_path, _choose_ports) as kernel:
        pid, ports = kernel.pid, kernel.manager.ports
        restart(kernel, newports=True)
        assert kernel.manager.ports != ports
        assert kernel.pid != pid
        assert not psutil.pid_exists(pid)
        _answers(kernel.manager)


def test_a_changed_environment_replaces_the_broker(kernel: Kernel) -> None:
    pid = kernel.pid
    kernel.manager.update_env(env={"CHANGED": "yes"})
    restart(kernel)
    kernel.wait_until_ready()
    assert kernel.pid != pid
    assert kernel.evaluate("__import__('os').environ['CHANGED']") == "'yes'"
    pid = kernel.pid
    restart(kernel)
    assert kernel.pid == pid


def test_a_broker_that_does_not_answer_is_replaced(kernel: Kernel) -> None:
    pid = kernel.pid
    os.kill(pid, signal.SIGSTOP)
    restart(kernel)
    kernel.wait_until_ready()
    assert kernel.pid != pid
    assert not psutil.pid_exists(pid)
    kernel.run_ok("1")


def test_a_broker_that_dies_meanwhile_is_replaced(kernel: Kernel) -> None:
    pid = kernel.pid
    kernel.manager.shutdown_kernel(restart=True)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "death")
    kernel.manager.start_kernel()
    assert kernel.pid != pid
    kernel.wait_until_ready()


def test_another_kernel_under_our_provisioner_restarts_as_ever(
    provisioned: str, private_folders: Path, tmp_path: Path
) -> None:
    spec = KernelSpecManager().get_kernel_spec("python3").to_dict()
    spec["metadata"] = {"kernel_provisioner": dict(OWN_PROVISIONER)}
    write_spec(private_folders / "path", "other-in-place", spec)
    with run("other-in-place", tmp_path) as kernel:
        pid = kernel.pid
        restart(kernel)
        kernel.wait_until_ready()
        assert kernel.pid != pid


def _answers(manager: KernelManager) -> None:
    client = manager.client()
    # A zmq router serves one client a name: the one of `run` may connect again after this one.
    client.session = client.session.clone()
    client.session.session = str(uuid.uuid4())
    client.start_channels(hb=False)
    try:
        client.wait_for_ready(timeout=30)
    finally:
        client.stop_channels()


def _use_ipc(folder: Path, manager: KernelManager) -> None:
    manager.transport = "ipc"
    manager.ip = str(folder / "k")


def test_a_kernel_with_ipc_sockets_restarts_the_plain_way(
    provisioned: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = tmp_path_factory.mktemp("i")
    prepare = partial(_use_ipc, folder)
    with run(provisioned, tmp_path, prepare) as kernel:
        pid = kernel.pid
        restart(kernel)
        assert kernel.pid != pid
        _answers(kernel.manager)


# --- the kernelspec -------------------------------------------------------------------------------


def test_the_provisioner_is_never_the_default() -> None:
    assert "kernel_provisioner" not in make_spec(SpecOptions())["metadata"]


def test_a_kernelspec_names_it_when_it_is_asked_for() -> None:
    metadata = make_spec(SpecOptions(provisioner=True))["metadata"]
    assert metadata["kernel_provisioner"] == OWN_PROVISIONER
    assert metadata["supported_encryption"] == ["curve"]


def test_it_is_a_local_provisioner() -> None:
    assert issubclass(UnstuckProvisioner, LocalProvisioner)
