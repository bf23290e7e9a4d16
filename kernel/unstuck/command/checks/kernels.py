"""The installed kernelspecs, and a kernel that is really started."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from unstuck.command.checks.finding import Finding, good, note, wrong
from unstuck.config import parse_settings
from unstuck.errors import ConfigError, KernelError
from unstuck.kernelspec import BROKER_MODULE, InstalledSpec, installed_specs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from unstuck.headless.kernel import HeadlessKernel, KernelChoice

LOOK_DEADLINE_S = 30.0
REPLY_DEADLINE_S = 30.0

_LOOK = f"import importlib.util as u, sys; sys.exit(u.find_spec({BROKER_MODULE!r}) is None)"


def check_kernelspecs(specs: Iterable[InstalledSpec] | None = None) -> Iterator[Finding]:
    """Look whether the Python of each kernelspec is there and has unstuck."""
    found = list(installed_specs() if specs is None else specs)
    if not found:
        yield note("Kernelspecs", "none of ours is installed", "unstuck install")
    for spec in found:
        subject = f"Kernelspec {spec.name}"
        if spec.shadowed_by is not None:
            yield note(subject, f"{spec.folder} is not used: {spec.shadowed_by} comes first")
        again = f"unstuck uninstall --name {spec.name}, or install again from a Python with unstuck"
        try:
            parse_settings(spec.settings)
        except ConfigError as error:
            yield wrong(subject, f"its settings do not fit this version: {error}", again)
        if not spec.python_exists:
            yield wrong(subject, f"its Python is gone: {spec.python}", again)
        elif problem := _look_for_broker(spec):
            yield wrong(subject, f"{spec.python} {problem}", again)
        else:
            yield good(subject, f"{spec.folder} starts {spec.python}")


def _look_for_broker(spec: InstalledSpec) -> str:
    """Ask a kernelspec's Python for the broker; empty when all is well."""
    try:
        done = subprocess.run(
            [spec.argv[0], "-P", "-c", _LOOK],
            env={**os.environ, **spec.env},
            capture_output=True,
            timeout=LOOK_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"did not answer within {LOOK_DEADLINE_S:g} s"
    except OSError as error:
        return f"cannot be started: {error.strerror or error}"
    return "" if done.returncode == 0 else "has no unstuck"


def check_start(choice: KernelChoice | None = None) -> Iterator[Finding]:
    """Start a kernel, let it add two numbers, and end it."""
    from unstuck.headless.kernel import KernelChoice

    try:
        timing = asyncio.run(_start_and_add(choice or KernelChoice()))
    except (KernelError, TimeoutError) as error:
        remedy = "what it wrote says why; 'unstuck version' and this output make a good report"
        yield wrong("Start", str(error) or "the kernel did not answer in time", remedy)
    else:
        yield good("Start", timing)


async def _start_and_add(choice: KernelChoice) -> str:
    from unstuck.headless.kernel import running_kernel
    from unstuck.headless.stop import StopRequest

    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with running_kernel(choice, Path(folder), StopRequest()) as kernel:
            ready_s = time.monotonic()
            await asyncio.wait_for(_add(kernel), REPLY_DEADLINE_S)
            replied_s = time.monotonic()
    ended_s = time.monotonic()
    return (
        f"a kernel started in {ready_s - started_s:.2f} s, computed 1 + 1 in"
        f" {replied_s - ready_s:.2f} s and ended in {ended_s - replied_s:.2f} s"
    )


async def _add(kernel: HeadlessKernel) -> None:
    """Run ``1 + 1`` and insist on the answer.

    Raises:
        KernelError: there was another one.
    """
    request = kernel.client.execute("1 + 1")
    shown = ""
    while True:
        message = await kernel.client.get_iopub_msg(timeout=REPLY_DEADLINE_S)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "execute_result":
            shown = str(message["content"]["data"]["text/plain"])
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
    if shown != "2":
        raise KernelError(f"the kernel says that 1 + 1 is {shown or 'nothing'}")
