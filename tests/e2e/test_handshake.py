"""A kernel that is started with a registration file, as launchers of JEP 66 do."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient

from e2e.kernel_client import START_S, WAIT_S
from e2e.spec import SOURCE_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DELIMITER = b"<IDS|MSG>"
KEY = "registration-key"


@pytest.fixture
def launcher() -> Iterator[zmq.Socket[bytes]]:
    """Wait for kernels' ports on a socket."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as made:
        made.set(zmq.RCVTIMEO, int(START_S * 1000))
        made.set(zmq.LINGER, 1000)
        yield made


@pytest.fixture
def file(tmp_path: Path, launcher: zmq.Socket[bytes]) -> Path:
    """Write the registration file of one kernel."""
    fields = {
        "kernel_id": "kernel-1",
        "transport": "tcp",
        "registration_ip": "127.0.0.1",
        "registration_port": launcher.bind_to_random_port("tcp://127.0.0.1"),
        "key": KEY,
        "signature_scheme": "hmac-sha256",
    }
    path = tmp_path / "kernel-1.json"
    path.write_text(json.dumps(fields))
    return path


@pytest.fixture
def kernel(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a kernel with the registration file in place of a connection file."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "unstuck_broker", "-f", str(file)],
        env={**os.environ, "PYTHONPATH": SOURCE_PATH},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        if process.poll() is None:
            process.kill()


def answer(launcher: zmq.Socket[bytes], key: str) -> dict[str, str]:
    """Take a kernel's ports, and acknowledge them signed with a key."""
    identity, _, _, content = launcher.recv_multipart()
    receipt = b'{"status":"ok"}'
    signature = hmac.new(key.encode(), receipt, hashlib.sha256).hexdigest().encode()
    launcher.send_multipart([identity, DELIMITER, signature, receipt])
    told: dict[str, str] = json.loads(content)
    return told


def test_the_kernel_tells_its_ports_and_serves_on_them(
    launcher: zmq.Socket[bytes], file: Path, kernel: subprocess.Popen[str]
) -> None:
    told = answer(launcher, KEY)
    assert told.pop("kernel_id") == "kernel-1"
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    assert {name: str(getattr(client, name)) for name in told} == told
    client.start_channels()
    try:
        client.wait_for_ready(timeout=START_S)
        client.shutdown()
        assert kernel.wait(WAIT_S) == 0
    finally:
        client.stop_channels()


def test_a_kernel_that_is_not_acknowledged_exits_with_the_reason(
    launcher: zmq.Socket[bytes], kernel: subprocess.Popen[str]
) -> None:
    answer(launcher, "somebody else's key")
    _, errors = kernel.communicate(timeout=WAIT_S)
    assert kernel.returncode == 2
    assert "is not signed with our key" in errors
    assert "Traceback" not in errors
