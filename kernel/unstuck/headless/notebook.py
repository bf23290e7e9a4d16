"""Notebooks as files: read with a clear error, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from unstuck.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nbformat import NotebookNode

# What a terminal would show of "text\rother": the part behind the last return, in each line.
_OVERWRITTEN = re.compile(r"^.*\r(?=[^\r\n])", re.MULTILINE)


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook of any version, as version 4.

    Raises:
        ConfigError: the file is missing, a folder, not readable, not a notebook, or without cells.
    """
    import nbformat  # noqa: PLC0415 - half a second with its schemas

    text = _read_text(path)
    try:
        document: object = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is no notebook: it is not JSON ({error})") from None
    if not isinstance(document, dict) or "nbformat" not in document:
        raise ConfigError(f"{path} is no notebook: it has no 'nbformat' key")
    try:
        with warnings.catch_warnings():
            # A cell without an id gets one; nbformat also says so on stderr.
            warnings.simplefilter("ignore")
            notebook = cast("NotebookNode", nbformat.reads(text, as_version=4))  # type: ignore[no-untyped-call] # nbformat is typed in part
            nbformat.validate(notebook)
    except Exception as error:  # noqa: BLE001 - nbformat raises what its converters happen to meet
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ConfigError(f"{path} is no valid notebook: {reason}") from None
    if not notebook.cells:
        raise ConfigError(f"{path} has no cells: there is nothing to run")
    return notebook


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a notebook")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no notebook: it is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def is_code(cell: NotebookNode) -> bool:
    """Say whether a cell is to be run."""
    tags: object = cell.metadata.get("tags", [])
    skipped = isinstance(tags, list) and "skip-execution" in tags
    return bool(cell.cell_type == "code" and cell.source.strip() and not skipped)


def first_line(cell: NotebookNode) -> str:
    """Give the first line of a cell that is not blank."""
    return str(next(iter(str(cell.source).strip().splitlines()), ""))


def clear_outputs(notebook: NotebookNode) -> None:
    """Forget an earlier run, so that nothing old stands beside what is new."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
            cell.metadata.pop("execution", None)


def tidy_outputs(notebook: NotebookNode) -> None:
    """Join neighbouring pieces of a stream; keep of a progress bar what a terminal would show."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        joined: list[Any] = []
        for output in cell.outputs:
            last = joined[-1] if joined else None
            if last is not None and _same_stream(last, output):
                last.text += output.text
            else:
                joined.append(output)
        for output in joined:
            if output.output_type == "stream" and "\r" in output.text:
                output.text = _OVERWRITTEN.sub("", output.text.replace("\r\n", "\n"))
        cell.outputs = joined


def _same_stream(one: NotebookNode, other: NotebookNode) -> bool:
    return bool(
        one.output_type == "stream" and other.output_type == "stream" and one.name == other.name
    )


def error_output(*, ename: str, evalue: str, traceback: Sequence[str]) -> NotebookNode:
    """Make an output as a kernel's error message would."""
    output = {"ename": ename, "evalue": evalue, "traceback": list(traceback)}
    return _as_node({"output_type": "error", **output})


def stderr_output(text: str) -> NotebookNode:
    """Make an output as text on stderr would."""
    return _as_node({"output_type": "stream", "name": "stderr", "text": text})


def _as_node(fields: dict[str, object]) -> NotebookNode:
    import nbformat  # noqa: PLC0415 - half a second with its schemas

    return cast("NotebookNode", nbformat.from_dict(fields))  # type: ignore[no-untyped-call] # typed in part


def check_writable(path: Path) -> None:
    """Find out before a long run whether its output can be written.

    Raises:
        ConfigError: the path is a folder, or its folder is missing or not writable.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder (--output-dir takes one)")
    if not folder.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {folder}")
    try:
        # Asking the kernel of the OS would miss read-only mounts seen by root, and full quotas.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".unstuck-"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook in one step: whoever reads ``path`` finds the old file or the new one.

    Raises:
        ConfigError: the file cannot be written; an earlier one is untouched.
    """
    import nbformat  # noqa: PLC0415 - half a second with its schemas

    # A lone surrogate cannot be UTF-8; the backslash form is just how JSON spells it.
    text = nbformat.writes(notebook)  # type: ignore[no-untyped-call] # nbformat is typed in part
    data = f"{text}\n".encode("utf-8", "backslashreplace")
    target = path.resolve()  # a link stays a link
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        staging = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            staging.chmod(mode)
            staging.replace(target)
        finally:
            staging.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
