"""``%unstuck``: show and change the kernel's settings."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from unstuck import config
from unstuck.errors import ConfigError
from unstuck.protocol import SetSettings
from unstuck_worker import snapshotmagics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from IPython.core.interactiveshell import InteractiveShell

    from unstuck_worker.kernel import UnstuckKernel
    from unstuck_worker.shell import UnstuckShell

AT_WORKER_START = frozenset({"profile", "ipython_arguments", "matplotlib_backend"})
"""Settings that the shell reads when it is made."""
AT_KERNEL_START = frozenset(
    {
        *("start_deadline_s", "shutdown_grace_s", "backlog_bytes", "stream_flush_s"),
        *("stream_bytes", "iopub_stall_s", "subscription_wait_s"),
    }
)
"""Settings that the broker reads once: they cannot change any more."""

_VALUE_WIDTH = 14
"""Of the column of values: few are longer."""


@magics_class
class SettingsMagics(Magics):
    """The settings, as a table."""

    @line_magic
    def unstuck(self, line: str) -> None:
        """Show all settings, or set one: ``%unstuck [NAME VALUE]``."""
        kernel: UnstuckKernel = self.shell.kernel  # type: ignore[union-attr]
        words = line.split(maxsplit=1)
        match words:
            case []:
                sys.stdout.write(table(kernel.settings) + snapshotmagics.status(kernel))
            case [name]:
                _check(name)
                sys.stdout.write(table(kernel.settings, name))
            case [name, value]:
                _check(name)
                sys.stdout.write(_change(kernel, name, value.removeprefix("=").strip()))
            case _:
                raise UsageError("Write %unstuck NAME VALUE.")


def _check(name: str) -> None:
    if name not in config.SETTINGS:
        known = ", ".join(sorted(config.SETTINGS))
        raise UsageError(f"unknown setting {name!r}: it is one of {known}")


class CellTimeout:
    """The shell's ``execute_request_timeout``: ``cell_timeout_s``, and None for no limit."""

    def __get__(self, shell: UnstuckShell | None, owner: type | None = None) -> float | None:
        """Read the setting; None too where the shell has no kernel yet."""
        settings = getattr(getattr(shell, "kernel", None), "settings", {})
        return settings.get("cell_timeout_s") or None

    def __set__(self, shell: UnstuckShell, value: float | None) -> None:
        """Change the setting.

        Raises:
            ConfigError: the value is no number of seconds.
        """
        change(shell.kernel, "cell_timeout_s", 0 if value is None else value)


def change(kernel: UnstuckKernel, name: str, given: object) -> object:
    """Set one setting, here and in the broker; give its value as it holds now.

    Raises:
        ConfigError: the setting does not take this value, or does not change any more.
    """
    value = getattr(config.make_config({name: given}), name)
    if name in AT_KERNEL_START:
        now = _plain(kernel.settings[name])
        raise ConfigError(
            f"{name} is read once, when the kernel starts, and stays {now}:"
            f" choose it with `unstuck install --set {name}={_plain(value)}`"
        )
    kernel.send_to_broker(SetSettings({name: value}))
    kernel.settings[name] = value
    if name in _APPLY:
        _APPLY[name](kernel.shell, value)
    return value


def _change(kernel: UnstuckKernel, name: str, text: str) -> str:
    """Set one setting from text; say since when it holds."""
    try:
        value = change(kernel, name, text.split() if name == "ipython_arguments" else text)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    since = "from the next restart on" if name in AT_WORKER_START else "from now on"
    return f"{name} = {_plain(value)} {since}\n"


def _set_jedi(shell: InteractiveShell, value: Any) -> None:  # noqa: ANN401
    shell.Completer.use_jedi = value


def _set_history(shell: InteractiveShell, value: Any) -> None:  # noqa: ANN401
    if shell.history_manager is not None:
        shell.history_manager.enabled = value


_APPLY: Mapping[str, Callable[[InteractiveShell, Any], None]] = {
    "jedi": _set_jedi,
    "history": _set_history,
}


def table(settings: Mapping[str, Any], only: str | None = None) -> str:
    """Lay out the settings: name, value with a star where it is not the default, and meaning."""
    defaults = config.Config()
    rows: list[tuple[str, str, str]] = []
    for name, meaning in meanings().items():
        if only in (None, name):
            value = settings[name]
            mark = "" if value == getattr(defaults, name) else " *"
            rows.append((name, _plain(value) + mark, meaning))
    width = max(len(name) for name, _, _ in rows)
    # One long value would push every meaning out of a notebook's page.
    value_width = min(max(len(value) for _, value, _ in rows), _VALUE_WIDTH)
    lines = (f"{name:<{width}}  {value:<{value_width}}  {text}" for name, value, text in rows)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "(none)"
    return str(value) or "(none)"


@cache
def meanings() -> dict[str, str]:
    """Read each setting's one-line meaning: the string under its field in `unstuck.config`."""
    found: dict[str, str] = {}
    for node in ast.parse(inspect.getsource(config)).body:
        if not isinstance(node, ast.ClassDef) or node.name not in ("WorkerConfig", "Config"):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found[field.target.id] = _text_of(after)
    return found


def _text_of(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""
