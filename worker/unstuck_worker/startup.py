"""The user's extensions, start-up files and lines, run by IPython's own code for them."""

# IPython's methods have no types.
# mypy: allow-untyped-calls

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any

from IPython.core.shellapp import InteractiveShellApp
from traitlets import Any as AnyTrait
from traitlets import List
from traitlets.config.configurable import LoggingConfigurable

if TYPE_CHECKING:
    from unstuck_worker.profile import Profile
    from unstuck_worker.shell import UnstuckShell


class IPKernelApp(InteractiveShellApp, LoggingConfigurable):
    """Stand where IPython expects an application; configuration files name its sections."""

    name = "unstuck"
    profile_dir = AnyTrait()
    ipython_dir = AnyTrait("")
    extra_args: Any = List()
    connection_file: Any = AnyTrait("").tag(config=True)
    """Libraries read it in the shell's configuration; without the trait each start would warn."""


class Startup:
    """One run of the start-up code."""

    def __init__(self, shell: UnstuckShell, profile: Profile) -> None:
        """Run for ``shell`` what ``profile`` says."""
        self._shell = shell
        self._app = IPKernelApp(
            config=profile.config,
            shell=shell,
            profile_dir=profile.directory,
            ipython_dir=profile.ipython_dir,
            log=logging.getLogger("unstuck.worker"),
        )

    def run(self) -> None:
        """Run everything; an error is printed on stderr, as nobody has sent a cell yet."""
        shell: Any = self._shell
        shown = shell._showtraceback  # noqa: SLF001  (IPython's place for it)
        shell._showtraceback = _print_traceback  # noqa: SLF001
        try:
            self._app.init_gui_pylab()
            self._app.init_extensions()
            self._app.init_code()
        except BaseException:  # noqa: BLE001  (user code; `sys.exit` in a start-up file, too)
            traceback.print_exc()
        finally:
            shell._showtraceback = shown  # noqa: SLF001


def _print_traceback(_kind: object, _error: object, lines: list[str]) -> None:
    sys.stderr.write("\n".join(lines) + "\n")
