"""The kernels that are compared, and how each is started."""

from __future__ import annotations

import compileall
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from unstuck.kernelspec import make_argv

ROOT = Path(__file__).parents[2]
OURS = "unstuck"
REFERENCE = "ipykernel"
INSTALLED = {REFERENCE: "python3", "async-kernel": "async", "xeus-python": "xpython"}
"""The names under which the others' kernelspecs are installed."""


@dataclass(frozen=True)
class Peer:
    """One kernel: its name in the tables and its command line."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict[str, str])


def find_peers(folder: Path) -> tuple[list[Peer], list[str]]:
    """Give the kernels that are here, ours first, and the names of those that are not.

    Args:
        folder: where a compiled copy of our packages is put. The others are compiled where they are
            installed, and a launch that compiles measures the compiler.
    """
    peers = [_ours(folder)]
    absent: list[str] = []
    manager = KernelSpecManager(ensure_native_kernel=False)
    for name, installed in INSTALLED.items():
        try:
            spec = manager.get_kernel_spec(installed)
        except NoSuchKernel:
            absent.append(name)
            continue
        argv = [str(word) for word in spec.argv]
        if Path(argv[0]).name == argv[0] and argv[0].startswith("python"):
            argv[0] = sys.executable  # As jupyter_client does.
        env = {str(key): str(value) for key, value in spec.env.items()}
        peers.append(Peer(name, tuple(argv), env))
    return peers, absent


def _ours(folder: Path) -> Peer:
    for source in ("kernel/unstuck", "broker/unstuck_broker", "worker/unstuck_worker"):
        shutil.copytree(ROOT / source, folder / Path(source).name, dirs_exist_ok=True)
    compileall.compile_dir(folder, quiet=1)
    return Peer(OURS, tuple(make_argv()), {"PYTHONPATH": str(folder)})
