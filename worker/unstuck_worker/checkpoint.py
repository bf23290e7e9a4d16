"""``%checkpoint``: save the variables of this session to a file, and load them from one."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

if TYPE_CHECKING:
    from unstuck_worker.transplant.telling import Telling

USAGE = "Write %checkpoint save FILE, %checkpoint load FILE, or %checkpoint info FILE."


@magics_class
class CheckpointMagics(Magics):
    """Sessions as files."""

    @line_magic
    def checkpoint(self, line: str) -> None:
        """Save the session to a file, load one, or tell what is in one.

        Usage: ``%checkpoint save FILE``, ``%checkpoint load FILE``, ``%checkpoint info FILE``.
        Loading runs code of the file: load only what you have saved yourself.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"{error}: {line}. {USAGE}") from error
        match words:
            case ["save", name]:
                text = save_path(self.shell, name)
            case ["load", name]:
                text = load_path(self.shell, name)
            case ["info", name]:
                text = describe_path(name)
            case _:
                raise UsageError(USAGE)
        sys.stdout.write(text)


def save_path(shell: Any, name: str) -> str:  # noqa: ANN401  (IPython's is untyped)
    """Save to the file of that name; tell what is in it and what is not.

    Raises:
        UsageError: it cannot be written.
    """
    from unstuck_worker.transplant import file, summary  # noqa: PLC0415  (cloudpickle: if asked)

    path = Path(name).expanduser()
    start_s = time.monotonic()
    try:
        with _Line() as progress:
            carried = file.save(shell, path, progress=progress)
    except file.CheckpointError as error:
        raise UsageError(str(error)) from error
    return summary.describe_saved(path, carried, time.monotonic() - start_s)


def load_path(shell: Any, name: str, *, is_fresh: bool = False) -> str:  # noqa: ANN401
    """Load the file of that name; tell what has come and what has not.

    Raises:
        UsageError: the file is refused; nothing has been changed.
    """
    from unstuck_worker.transplant import file, summary  # noqa: PLC0415  (cloudpickle: if asked)

    path = Path(name).expanduser()
    start_s = time.monotonic()
    try:
        with _Line() as progress:
            header, carried = file.load(shell, path, is_fresh=is_fresh, progress=progress)
    except file.CheckpointError as error:
        raise UsageError(str(error)) from error
    return summary.describe_loaded(path, header, carried, time.monotonic() - start_s)


def describe_path(name: str) -> str:
    """Tell what is in the file of that name, without running any of it.

    Raises:
        UsageError: the file is refused.
    """
    from unstuck_worker.transplant import file, summary  # noqa: PLC0415  (cloudpickle: if asked)

    path = Path(name).expanduser()
    try:
        return summary.describe(path, file.read(path))
    except file.CheckpointError as error:
        raise UsageError(str(error)) from error


class _Line:
    """One line of stderr that shows how far it is, when it takes longer than a second."""

    def __init__(self) -> None:
        self._is_shown = False

    def __enter__(self) -> Telling:
        from unstuck_worker.transplant.telling import Telling  # noqa: PLC0415

        return Telling(self._show)

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            _write_over("")

    def _show(self, done: int, total: int, name: str) -> None:
        from unstuck_worker.transplant.names import shown  # noqa: PLC0415

        self._is_shown = True
        _write_over(f"{done} of {total}: {shown(name)}")


def _write_over(text: str) -> None:
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()
