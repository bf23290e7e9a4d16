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
    from collections.abc import Mapping

    from unstuck_worker.transplant.parts import Header
    from unstuck_worker.transplant.telling import Telling

USAGE = "Write %checkpoint save FILE, %checkpoint load FILE, or %checkpoint info FILE."
MAX_NAMED = 40


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
                text = save_file(self.shell, Path(name).expanduser())
            case ["load", name]:
                text = load_file(self.shell, Path(name).expanduser())
            case ["info", name]:
                text = describe_file(Path(name).expanduser())
            case _:
                raise UsageError(USAGE)
        sys.stdout.write(text)


def save_file(shell: Any, path: Path) -> str:  # noqa: ANN401  (IPython's is untyped)
    """Save; tell what is in the file and what is not.

    Raises:
        UsageError: it cannot be written.
    """
    from unstuck_worker.transplant import file  # noqa: PLC0415  (cloudpickle: only when asked)

    start_s = time.monotonic()
    try:
        with _Line() as progress:
            carried = file.save(shell, path, progress=progress)
    except file.CheckpointError as error:
        raise UsageError(str(error)) from error
    spent_s = time.monotonic() - start_s
    head = f"Saved {_count(carried.came)} ({size(carried.size_bytes)}) to {path}"
    return f"{head} in {spent_s:.2g} s.\n{list_missing(carried.missing, 'Not saved')}"


def load_file(shell: Any, path: Path, *, is_fresh: bool = False) -> str:  # noqa: ANN401
    """Load; tell what has come and what has not.

    Raises:
        UsageError: the file is refused; nothing has been changed.
    """
    from unstuck_worker.transplant import file  # noqa: PLC0415  (cloudpickle: only when asked)

    start_s = time.monotonic()
    try:
        with _Line() as progress:
            header, carried = file.load(shell, path, is_fresh=is_fresh, progress=progress)
    except file.CheckpointError as error:
        raise UsageError(str(error)) from error
    spent_s = time.monotonic() - start_s
    head = (
        f"Loaded {_count(carried.came)} ({size(carried.size_bytes)}) from {path}, saved"
        f" {header.saved_at} after cell {header.cell}, in {spent_s:.2g} s."
    )
    return f"{head}\n{_versions(header)}{list_missing(carried.missing, 'Not loaded')}"


def describe_file(path: Path) -> str:
    """Tell what is in a file, without running any of it.

    Raises:
        UsageError: the file is refused.
    """
    from unstuck_worker.transplant import file  # noqa: PLC0415  (cloudpickle: only when asked)
    from unstuck_worker.transplant.names import is_users  # noqa: PLC0415

    try:
        found = file.read(path)
    except file.CheckpointError as error:
        raise UsageError(str(error)) from error
    header = found.header
    kept = sorted(name for group, _ in found.groups for name in group.names if is_users(name))
    named = ", ".join(kept[:MAX_NAMED]) + (", …" if len(kept) > MAX_NAMED else "")
    lines = [
        f"{path}: {_count(len(kept))}, {size(found.size_bytes)}",
        f"saved {header.saved_at} after cell {header.cell}",
        f"by unstuck {header.unstuck}, Python {header.python}, {header.machine}",
        f"holds {named or 'no variables'}",
    ]
    return "\n".join(lines) + f"\n{_versions(header)}{list_missing(found.missing, 'Not in it')}"


def list_missing(missing: Mapping[str, str], what: str) -> str:
    """Name what has not come, each with its reason."""
    from unstuck_worker.transplant.names import shown  # noqa: PLC0415

    if not missing:
        return ""
    rows = [f"  {shown(name)}: {reason}" for name, reason in missing.items()]
    more = [f"  and {len(rows) - MAX_NAMED} more"] if len(rows) > MAX_NAMED else []
    return "\n".join([f"{what}:", *rows[:MAX_NAMED], *more]) + "\n"


def _versions(header: Header) -> str:
    """Name the libraries that have another version here, as far as they are loaded."""
    other = [
        f"{name} {there} (here {here})"
        for name, there in sorted(header.packages.items())
        if isinstance(here := getattr(sys.modules.get(name), "__version__", None), str)
        and "".join(here) != there
    ]
    return f"Saved with other versions: {', '.join(other)}\n" if other else ""


def size(size_bytes: int) -> str:
    """Write a size for a person."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


def _count(number: int) -> str:
    return "1 variable" if number == 1 else f"{number} variables"


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
