"""The kernel's own line magics."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core import page
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.display import display
from IPython.utils import openpy

from unstuck.jobcontext import get_context
from unstuck.protocol import AskRestart
from unstuck_worker.cellmagics import CellMagics
from unstuck_worker.checkpoint import CheckpointMagics
from unstuck_worker.settings import SettingsMagics
from unstuck_worker.snapshotmagics import SnapshotMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from unstuck_worker.kernel import UnstuckKernel

CLEAR_SCREEN = "\x1b[H\x1b[2J"


def load(shell: InteractiveShell) -> None:
    """Register the magics; the shell has its kernel by the time one is called."""
    for magics in (KernelMagics, CellMagics, SettingsMagics, CheckpointMagics, SnapshotMagics):
        shell.register_magics(magics)
    shell.magics_manager.register_alias("ed", "edit")


@magics_class
class KernelMagics(Magics):
    """What a cell can ask of the kernel, and IPython's terminal magics for a notebook."""

    @property
    def _owner(self) -> InteractiveShell:
        if self.shell is None:
            raise UsageError("This magic needs a shell.")
        return self.shell

    @property
    def _kernel(self) -> UnstuckKernel:
        kernel: UnstuckKernel = getattr(self._owner, "kernel")  # noqa: B009  (our shell's, not IPython's)
        return kernel

    @line_magic
    def connect_info(self, line: str) -> None:
        """Print how other clients connect to this kernel: its connection file and the commands."""
        del line
        path = Path(self._kernel.connection_file or "no connection file")
        try:
            info = path.read_text()
        except OSError as error:
            raise UsageError(f"There is no connection file to show: {error}") from error
        sys.stdout.write(
            f"{info}\n\n"
            "Paste the above JSON into a file, and connect with:\n"
            "    $> jupyter <app> --existing <file>\n"
            "or, if you are local, you can connect with just:\n"
            f"    $> jupyter <app> --existing {_short(path)}\n"
            "or even just:\n"
            "    $> jupyter <app> --existing\n"
            "if this is the most recent Jupyter kernel you have started.\n"
        )

    @line_magic
    def qtconsole(self, line: str) -> None:
        """Open a Qt console on this kernel: ``%qtconsole [its options]``."""
        if importlib.util.find_spec("qtconsole") is None:
            raise UsageError("The Qt console is not installed: pip install qtconsole pyqt6")
        start = "from qtconsole import qtconsoleapp; qtconsoleapp.main()"
        options = ["--existing", self._kernel.connection_file, *shlex.split(line)]
        # In a session of its own an interrupt of a cell does not close it.
        console = subprocess.Popen([sys.executable, "-c", start, *options], start_new_session=True)
        self._kernel.processes[console.pid] = console  # Else Python warns that nobody waits for it.

    @line_magic
    def callers(self, line: str) -> None:
        """Print the Callers of this process: running, protected, thread name."""
        del line
        from unstuck.caller import Caller  # noqa: PLC0415  (a Caller needs anyio: not at start-up)

        lines = ["Running\tProtected\t\t\tName", "─" * 70]
        for caller in Caller.all_callers(running_only=False):
            here = caller.thread is threading.current_thread()
            cells = (
                "   ✓" if caller.running else "   ✗",
                "   🔐" if caller.protected else "",
                "",
                caller.thread.name,
                "← current thread" if here else "",
            )
            lines.append("\t".join(cells))
        sys.stdout.write("\n".join(lines) + "\n")

    @line_magic
    def subshell(self, line: str) -> None:
        """Print where this cell runs, and the open subshells."""
        del line
        context = get_context()
        sys.stdout.write(
            f"subshell id: {context.subshell if context else None}\n"
            f"thread id: {threading.get_ident()}\n"
            f"main thread id: {threading.main_thread().ident}\n"
            f"pid: {os.getpid()}\n"
            f"thread count: {threading.active_count()}\n"
            f"subshell list: {list(self._kernel.list_subshells())}\n"
        )

    @line_magic
    def restart(self, line: str) -> None:
        """Restart the process that runs the cells, once this cell has ended."""
        del line
        context = get_context()
        self._kernel.send_to_broker(AskRestart(context.job if context else 0))
        sys.stdout.write("Restarting after this cell.\n")

    @line_magic
    def autosave(self, line: str) -> None:
        """Set how often the notebook is saved, in seconds; 0 is never (classic notebook only)."""
        try:
            interval_s = int(line)
        except ValueError as error:
            raise UsageError(f"%autosave requires an integer, got {line!r}") from error
        script = f"IPython.notebook.set_autosave_interval({1000 * interval_s})"
        display({"application/javascript": script}, raw=True)
        told = f"Autosaving every {interval_s} seconds" if interval_s else "Autosave disabled"
        sys.stdout.write(f"{told}\n")

    @line_magic
    def clear(self, line: str) -> None:
        """Clear the screen of a console."""
        del line
        sys.stdout.write(CLEAR_SCREEN)

    @line_magic
    def less(self, line: str) -> None:
        """Show a file in the pager; Python files in colour."""
        _page_file(self._owner, line)

    @line_magic
    def more(self, line: str) -> None:
        """Show a file in the pager, as %less does."""
        _page_file(self._owner, line)

    @line_magic
    def man(self, line: str) -> None:
        """Show the manual page of a command in the pager."""
        read: Any = self._owner.getoutput
        text = read(f"man {line} | col -b", split=False)
        page.page(text)

    @line_magic
    def edit(self, line: str, last_call: list[str] | None = None) -> None:
        """Have the frontend open a file, the source of an object, or lines of the history.

        Usage: ``%edit [-n LINE] [-p] [-r] [FILE | OBJECT | LINES]``. Without arguments a temporary
        file is opened. What you change there does not run by itself.
        """
        from IPython.core.magics.code import CodeMagics, MacroToEdit  # noqa: PLC0415  (rarely used)

        options, arguments = self.parse_options(line, "prn:")
        try:
            # IPython has no public way to find what %edit means.
            find: Any = CodeMagics._find_edit_target  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            found = find(self.shell, arguments, options, last_call or ["", ""])
        except MacroToEdit as error:
            raise UsageError("A macro cannot be edited in a frontend.") from error
        if found[0] is None:
            # IPython has said what it did not find.
            return
        payload: dict[str, Any] = {
            "source": "edit_magic",
            "filename": str(Path(found[0]).resolve()),
            "line_number": int(found[1] or 0),
        }
        payloads: Any = self._owner.payload_manager
        payloads.write_payload(payload)


def _page_file(shell: InteractiveShell, name: str) -> None:
    if not name:
        raise UsageError("Missing filename.")
    path = Path(name).expanduser()
    try:
        if path.suffix == ".py":
            source = openpy.read_py_file(path, skip_encoding_cookie=False)
            text = shell.pycolorize(source)
        else:
            text = path.read_text()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot show {name}: {error}") from error
    page.page(text)


def _short(path: Path) -> str:
    """Name a connection file as ``--existing`` takes it."""
    from jupyter_core.paths import jupyter_runtime_dir  # noqa: PLC0415  (needed by %connect_info only)

    return path.name if str(path.parent) == jupyter_runtime_dir() else str(path)
