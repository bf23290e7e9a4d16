"""Build the shell and the kernel facade as the broker's `Start` describes them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from unstuck.config import Config
from unstuck.jobcontext import JobContext, get_context
from unstuck_worker import compat, magics
from unstuck_worker.content import encode_user
from unstuck_worker.kernel import UnstuckKernel
from unstuck_worker.profile import Profile
from unstuck_worker.shell import UnstuckShell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unstuck.protocol import Start
    from unstuck_worker.comms import Publish
    from unstuck_worker.lane import OutputLane

_LAUNCHER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "ipykernel_launcher.py")  # noqa: PTH118, PTH120


def build_shell(start: Start, lane: OutputLane) -> tuple[UnstuckShell, Profile]:
    """Make the one shell of this process; its profile's start-up code has not run yet."""
    settings = msgspec.convert(start.settings, Config)
    os.environ.setdefault("MPLBACKEND", settings.matplotlib_backend)
    # ipykernel sets it for debugpy, and others ask for it.
    os.environ.setdefault("PYDEVD_USE_FRAME_EVAL", "NO")
    profile = Profile(settings.profile, settings.ipython_arguments)
    config = profile.config
    if not settings.history:
        config.HistoryManager.enabled = False
    if not settings.jedi:
        config.Completer.use_jedi = False
    add_working_folder(ignore="ignore_cwd" in config.get("InteractiveShellApp", {}))
    shell = UnstuckShell.instance(
        lane=lane,
        config=config,
        ipython_dir=profile.ipython_dir,
        profile_dir=profile.directory,
    )
    return shell, profile


def add_working_folder(*, ignore: bool = False) -> None:
    """Let cells import what lies beside the notebook, behind the standard library."""
    if ignore or "" in sys.path:
        return
    for at, entry in enumerate(sys.path):
        if os.path.basename(entry) in ("site-packages", "dist-packages"):  # noqa: PTH119
            sys.path.insert(at, "")
            return
    sys.path.insert(0, "")


def build_kernel(
    start: Start,
    shell: UnstuckShell,
    lane: OutputLane,
) -> UnstuckKernel:
    """Make what user code finds at ``get_ipython().kernel``."""
    kernel = UnstuckKernel(
        shell,
        make_publish(lane),
        lane.send,
        session=start.session,
        connection_file=start.connection_file,
        settings=start.settings,
    )
    # Notebooks find their own name and their server's session by it.
    shell.config.IPKernelApp.connection_file = start.connection_file
    # Cells that parse a command line expect ipykernel's, and know its one option.
    sys.argv = [_LAUNCHER, "-f", start.connection_file]
    magics.load(shell)
    compat.install()
    return kernel


def make_publish(lane: OutputLane) -> Publish:
    """Give the function that comms and the session publish with."""

    def publish(
        msg_type: str,
        content: dict[str, Any],
        *,
        metadata: dict[str, Any] | None = None,
        topic: bytes = b"",
        buffers: Sequence[Any] = (),
        parent: Mapping[str, Any] | None = None,
    ) -> None:
        lane.publish(
            get_context() if parent is None else JobContext.under(parent),
            msg_type,
            encode_user(content),
            metadata=encode_user(metadata) if metadata else b"{}",
            topic=topic,
            buffers=list(buffers),
        )

    return publish
