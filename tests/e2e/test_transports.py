"""A kernel of a real KernelManager on every transport, encrypted or not, and restarted there."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.kernel_client import Kernel
from e2e.spec import ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_client.manager import KernelManager

    from conftest import StartKernel

pytestmark = ours


def use(transport: str, encryption: str, folder: Path) -> Callable[[KernelManager], None]:
    """Give a function that sets a manager's transport before it starts its kernel."""

    def prepare(manager: KernelManager) -> None:
        manager.transport = transport
        manager.transport_encryption = encryption
        if transport == "ipc":
            manager.ip = str(folder / "k")

    return prepare


@pytest.mark.parametrize("encryption", ["disabled", "required"])
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_kernel_serves_and_restarts_on_every_transport(
    start_kernel: StartKernel,
    tmp_path_factory: pytest.TempPathFactory,
    transport: str,
    encryption: str,
) -> None:
    folder = tmp_path_factory.mktemp("ipc")
    kernel = start_kernel(prepare=use(transport, encryption, folder))
    file = Path(kernel.manager.connection_file)
    fields = json.loads(file.read_text())
    assert fields["transport"] == transport
    assert ("curve_secretkey" in fields) == (encryption == "required")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kernel.run_ok("print('hello')").stdout == "hello\n"
    assert kernel.request("kernel_info_request", channel="control").status == "ok"
    if transport == "ipc":
        assert len(list(folder.iterdir())) == 5
    with kernel.log.open("ab") as stderr:
        kernel.manager.restart_kernel(now=False, stderr=stderr)
    # Another client: a manager's clients share its session, and with it message ids and identity.
    kernel.client.stop_channels()
    again = Kernel(kernel.manager, kernel.log)
    try:
        again.wait_until_ready()
        assert json.loads(file.read_text())["shell_port"] == fields["shell_port"]
        assert again.run_ok("print('again')").stdout == "again\n"
    finally:
        again.client.stop_channels()
    kernel.manager.shutdown_kernel()
    assert list(folder.iterdir()) == []
