"""A checkpoint file: written whole or not at all, and checked whole before any of it is used."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from unstuck.errors import KernelError
from unstuck_worker.transplant import parts
from unstuck_worker.transplant.carrying import Carried, Contents, Luggage, pack, take
from unstuck_worker.transplant.dumping import DEADLINE_S
from unstuck_worker.transplant.loading import DEADLINE_S as READ_S

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    Tell = Callable[[int, int, str], None]

_PRIVATE = 0o600
_TRIES = 3


class CheckpointError(KernelError):
    """A file that cannot be written or used; the message is one line for the user."""


def save(
    shell: Any,  # noqa: ANN401  (IPython's is untyped)
    path: Path,
    *,
    deadline_s: float = DEADLINE_S,
    progress: Tell | None = None,
) -> Carried:
    """Write the session to a file, which is the old one until the new one is safely on the disk.

    Raises:
        CheckpointError: it cannot be written; the old file is as it was.
    """
    try:
        path = _target(path)
        with _new_file(path) as file:

            def write(chunks: list[parts.Chunk]) -> None:
                for chunk in chunks:
                    file.write(chunk)

            carried = pack(
                shell,
                write,
                Contents.of_session(shell, same_machine=False),
                deadline_s=deadline_s,
                progress=progress,
            )
            if progress is not None:
                progress(1, 1, path.name)  # The last moment at which it can still be given up.
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    return carried


def load(
    shell: Any,  # noqa: ANN401
    path: Path,
    *,
    is_fresh: bool = False,
    deadline_s: float = READ_S,
    progress: Tell | None = None,
) -> tuple[parts.Header, Carried]:
    """Bring what a file holds into the shell. This runs code of the file: it must be your own.

    Raises:
        CheckpointError: it is no checkpoint, damaged, or newer; nothing has been changed.
    """
    luggage = read(path)
    carried = luggage.unpack(shell, is_fresh=is_fresh, deadline_s=deadline_s, progress=progress)
    return luggage.header, carried


def read(path: Path) -> Luggage:
    """Read a file and check all of it; nothing of it runs.

    Raises:
        CheckpointError: it is no checkpoint, damaged, or newer.
    """
    try:
        # A pipe that nobody writes to would not even open.
        with open(path, "rb", opener=_open_unblocked) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"cannot read {path}: {_kind(status)}")
            return take(parts.Reader(_filler(file), status.st_size))
    except parts.Damaged as error:
        raise CheckpointError(f"{path} is refused: {error}") from error
    except (OSError, MemoryError) as error:
        told = getattr(error, "strerror", None) or str(error) or "there is not enough memory"
        raise CheckpointError(f"cannot read {path}: {told}") from error


def _filler(file: BinaryIO) -> Callable[[memoryview], None]:
    def fill(view: memoryview) -> None:
        while view:
            count = file.readinto(view)  # type: ignore[attr-defined]  # a file that is open to read
            if not count:
                raise EOFError
            view = view[count:]

    return fill


def _open_unblocked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _target(path: Path) -> Path:
    """Follow links to the file that is to be made or replaced.

    Raises:
        CheckpointError: what stands there is no file: it would be gone.
    """
    try:
        path = path.resolve()
        status = path.stat()
    except FileNotFoundError:
        return path
    except (RuntimeError, ValueError) as error:  # Links in a circle, up to Python 3.12; a NUL.
        raise CheckpointError(f"cannot write {path}: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"cannot write {path}: {_kind(status)}")
    return path


def _kind(status: os.stat_result) -> str:
    return os.strerror(errno.EISDIR) if stat.S_ISDIR(status.st_mode) else "it is no regular file"


@contextmanager
def _new_file(path: Path) -> Generator[BinaryIO]:
    """Open a file beside ``path`` that takes its place at the end, or is gone.

    Its name is always the same, and a lock says whether somebody writes it: what a killed process
    has left is used again, and never piles up.
    """
    beside = path.with_name(f".{path.name}.part")
    file = _open_locked(beside, path)
    try:
        with file:
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    _sync_folder(path.parent)


def _open_locked(beside: Path, path: Path) -> BinaryIO:
    for _ in range(_TRIES):
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        file = os.fdopen(descriptor, "r+b", buffering=1 << 20)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had the lock may have made it the checkpoint, just before we got it.
            if _is_same(os.fstat(descriptor), beside):
                return file
        except BlockingIOError:
            file.close()
            raise CheckpointError(f"another process is saving to {path}") from None
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP):
                return file  # A file system without locks.
            file.close()
            raise
        file.close()
    raise CheckpointError(f"other processes are saving to {path}")


def _is_same(opened: os.stat_result, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino)


def _sync_folder(folder: Path) -> None:
    """See to it that the new name is on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # Some file systems cannot.
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
