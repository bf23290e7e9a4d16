"""A plain IPython shell for tests of what stands around it, and a record of what it publishes."""

from __future__ import annotations

import atexit
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path


class Published(NamedTuple):
    """One message as it was given to ``publish``."""

    msg_type: str
    content: dict[str, Any]
    metadata: dict[str, Any] | None
    topic: bytes
    buffers: Sequence[Any]
    parent: Mapping[str, Any] | None


class Record:
    """Stand where the output lane stands."""

    def __init__(self) -> None:
        self.messages: list[Published] = []
        self.orders: list[Any] = []

    def publish(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        metadata: dict[str, Any] | None = None,
        topic: bytes = b"",
        buffers: Sequence[Any] = (),
        parent: Mapping[str, Any] | None = None,
    ) -> None:
        self.messages.append(Published(msg_type, content, metadata, topic, buffers, parent))

    def send(self, message: object) -> None:
        self.orders.append(message)

    @property
    def types(self) -> list[str]:
        return [message.msg_type for message in self.messages]


@contextmanager
def plain_shell(folder: Path, **history: object) -> Generator[InteractiveShell]:
    """Make the one shell of this process, with all that it writes in ``folder``; take it back."""
    config = Config()
    config.HistoryManager.hist_file = str(folder / "history.sqlite")
    config.HistoryManager.update(history)
    config.InteractiveShell.colors = "nocolor"
    hooks = sys.excepthook, sys.displayhook
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=config, ipython_dir=str(folder))
    untyped: Any = shell
    try:
        yield shell
    finally:
        untyped.atexit_operations()
        atexit.unregister(shell.atexit_operations)
        if shell.history_manager is not None:
            shell.history_manager.close()
        untyped.restore_sys_module_state()
        InteractiveShell.clear_instance()
        sys.excepthook, sys.displayhook = hooks


def run(shell: InteractiveShell, code: str) -> object:
    """Run a cell that must succeed; give its result."""
    untyped: Any = shell
    result = untyped.run_cell(code, store_history=True)
    result.raise_error()
    return result.result
