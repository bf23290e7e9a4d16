"""Connection files and addresses that cannot be used: exit code 2, one line, no traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.kernel_client import START_S
from e2e.spec import SOURCE_PATH, ours

pytestmark = ours

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
FIELDS: dict[str, Any] = {
    **{f"{channel}_port": 0 for channel in CHANNELS},
    "ip": "127.0.0.1",
    "key": "a-key",
    "transport": "tcp",
    "signature_scheme": "hmac-sha256",
}


def start(*arguments: str, **environment: str) -> str:
    """Start a kernel that must not come up; give the one line that says why."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "unstuck_broker", *arguments],
        env={**os.environ, "PYTHONPATH": SOURCE_PATH, **environment},
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "does not exist"),
        ("", "is no JSON"),
        ("{nonsense", "is no JSON"),
        ("[]", "is no JSON object"),
        ("{}", "ip, key, hb_port, shell_port, stdin_port, control_port, iopub_port missing"),
        (json.dumps({**FIELDS, "transport": "pigeon"}), "unknown transport 'pigeon'"),
        (json.dumps({**FIELDS, "shell_port": "many"}), "shell_port is 'many', not a number"),
        (json.dumps({**FIELDS, "signature_scheme": "hmac-rot13"}), "unknown signature scheme"),
        (json.dumps({**FIELDS, "ip": "203.0.113.1"}), "cannot bind the iopub channel"),
        (json.dumps({**FIELDS, "curve_publickey": "0" * 40}), "encryption needs both keys"),
        (
            json.dumps(
                {**FIELDS, **dict.fromkeys(("curve_publickey", "curve_secretkey"), "0" * 40)}
            ),
            "is not the public key of curve_secretkey",
        ),
    ],
)
def test_a_bad_connection_file_is_named_in_one_line(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    file = tmp_path / "kernel.json"
    if text is not None:
        file.write_text(text)
    assert reason in start("-f", str(file))
    assert file.exists() == (text is not None)


def test_a_port_in_use_is_named_with_its_channel(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "kernel.json"
        file.write_text(json.dumps({**FIELDS, "control_port": port}))
        line = start("-f", str(file))
    assert f"cannot bind the control channel to tcp://127.0.0.1:{port}" in line
    assert "Address already in use" in line


def test_a_runtime_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "runtime"
    line = start(JUPYTER_RUNTIME_DIR=str(folder))
    assert f"cannot write connection file {folder}" in line


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_read_only_runtime_folder_is_named() -> None:
    line = start(JUPYTER_RUNTIME_DIR="/proc/self")
    assert "cannot write connection file /proc/self/kernel-" in line
