"""What tests ask of snapshots: which there are, and what a recovery tells."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel
    from e2e.result import Result

ON_LINUX = [
    ours,
    pytest.mark.skipif(sys.platform != "linux", reason="snapshots need Linux"),
]
"""Marks of a file whose tests all need snapshots."""
MIME_TYPE = "application/vnd.unstuck.recovery+json"


def rows(kernel: Kernel) -> list[str]:
    """List the snapshots as the user sees them."""
    lines = kernel.run_ok("%snapshots").stdout.splitlines()
    return [line for line in lines[1:] if line[:1].isdigit()]


def wait_for_snapshot(kernel: Kernel) -> None:
    """Wait until a snapshot holds what is there now, as a person does who reads an output."""
    kernel.wait(lambda: any("(now)" in row for row in rows(kernel)), "current snapshot")


def account(result: Result) -> dict[str, Any]:
    """Give the data of the one recovery that a cell tells."""
    (data,) = [bundle[MIME_TYPE] for bundle in result.displays if MIME_TYPE in bundle]
    assert isinstance(data, dict)
    return data


def hang(kernel: Kernel, code: str) -> Result:
    """Let a cell hang in C, and interrupt it once."""
    result = kernel.execute(code)
    kernel.wait_for_text(result, "begun")
    kernel.interrupt()
    return kernel.finish(result)


def wait_for_snapshot_of(kernel: Kernel, code: str) -> None:
    """Run a cell and wait for its snapshot."""
    kernel.run_ok(code)
    wait_for_snapshot(kernel)
