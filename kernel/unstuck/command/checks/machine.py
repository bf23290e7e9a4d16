"""What the operating system gives: process control, limits, a private place for files."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from unstuck.command.checks.finding import Finding, good, note, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MIN_FILES = 256
MIN_PROCESSES = 256
MIN_MEMORY_BYTES = 512 << 20

CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def check_process_control(proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Look for what the broker watches and ends workers with."""
    if not sys.platform.startswith("linux"):
        yield note("Processes", "no /proc and no pidfd here: workers are watched by polling")
        return
    if (proc / "self" / "task").is_dir():
        yield good("Processes", f"{proc} is there")
    else:
        seen = f"{proc} is not mounted: threads and child processes of a worker cannot be seen"
        yield wrong("Processes", seen, f"mount it: mount -t proc proc {proc}")
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        yield note("Processes", f"pidfd does not work ({error}): workers are watched by SIGCHLD")
    else:
        yield good("Processes", "pidfd works")


def check_limits() -> Iterator[Finding]:
    """Look at the limits that a kernel's processes inherit."""
    for name, number, least in (
        ("open files", resource.RLIMIT_NOFILE, MIN_FILES),
        ("processes and threads", resource.RLIMIT_NPROC, MIN_PROCESSES),
        ("address space in bytes", resource.RLIMIT_AS, MIN_MEMORY_BYTES),
    ):
        yield judge_limit(name, resource.getrlimit(number)[0], least)


def judge_limit(name: str, limit: int, least: int) -> Finding:
    """Compare a limit with what a kernel needs."""
    if limit == resource.RLIM_INFINITY:
        return good("Limits", f"{name}: none")
    if limit < least:
        return wrong("Limits", f"{name}: {limit}, and {least} are needed", "raise it with ulimit")
    return good("Limits", f"{name}: {limit}")


def check_memory(cgroup: Path = CGROUP_MEMORY) -> Iterator[Finding]:
    """Look at the memory that is there, and at a container's limit."""
    import psutil

    memory = psutil.virtual_memory()
    seen = f"{memory.available >> 20} of {memory.total >> 20} MB are free"
    if memory.available < MIN_MEMORY_BYTES:
        yield wrong("Memory", seen, "end something: the system kills what grows next")
    else:
        yield good("Memory", seen)
    try:
        limit = cgroup.read_text().strip()
    except OSError:
        return
    if limit.isdigit():
        advice = "with the setting memory_bytes below it, a cell fails before the kernel is killed"
        yield note("Memory", f"this container may use {int(limit) >> 20} MB", advice)


def check_runtime_folder(folder: Path | None = None) -> Iterator[Finding]:
    """Write a connection file as Jupyter does, and look at who could read it."""
    from jupyter_core.paths import jupyter_runtime_dir

    folder = Path(jupyter_runtime_dir()) if folder is None else folder
    remedy = "give yourself a private folder and name it in JUPYTER_RUNTIME_DIR"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="doctor-", suffix=".json") as file:
            # mkstemp made it 0600: a file system that cannot say so shows it here.
            mode = stat.S_IMODE(Path(file.name).stat().st_mode)
    except OSError as error:
        reason = error.strerror or str(error)
        yield wrong("Runtime folder", f"{folder} cannot be written: {reason}", remedy)
        return
    yield good("Runtime folder", f"{folder} can be written")
    if mode & 0o077:
        seen = f"files in {folder} can be read by others (mode {mode:04o}): so can the kernel's key"
        yield wrong("Connection files", seen, remedy)
    else:
        yield good("Connection files", "only you can read them")


def check_jupyter(
    commands: Sequence[str] = ("jupyter-lab", "jupyter-notebook"),
) -> Iterator[Finding]:
    """Look for a frontend on the PATH, and beside this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = [place for name in commands if (place := shutil.which(name, path=path)) is not None]
    if found:
        yield good("Jupyter", ", ".join(found))
    else:
        seen = "neither JupyterLab nor Notebook is on the PATH"
        yield note("Jupyter", seen, "editors bring their own; otherwise: pip install jupyterlab")
