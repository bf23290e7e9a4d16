"""The kernel that a command is about: how it is named, found and reached, and how that fails."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unstuck.command import BadInput
from unstuck.errors import ConfigError, KernelError

if TYPE_CHECKING:
    from unstuck.control import Control
    from unstuck.running import RunningKernel

F = TypeVar("F", bound=Callable[..., Any])

ANSWER_S = 5.0
"""How long a kernel may take to say anything; unstuck answers in milliseconds."""


class Failed(BadInput):
    """One line for the user, and exit code 1: the kernel was found, and did not do it."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Target:
    """A kernel that has answered."""

    kernel: RunningKernel
    control: Control
    implementation: str

    @property
    def is_ours(self) -> bool:
        """Tell whether it knows the messages that only unstuck has."""
        from unstuck.vitals import OURS

        return self.implementation == OURS

    def require_ours(self, instead: str) -> None:
        """Refuse another kernel.

        Raises:
            ConfigError: it is one; the message ends with what can be done ``instead``.
        """
        if not self.is_ours:
            raise ConfigError(
                f"{self.kernel.describe()} is no unstuck kernel but {self.implementation}:"
                f" {instead}"
            )


def kernel_argument(command: F) -> F:
    """Add the argument KERNEL."""
    return click.argument("name", metavar="KERNEL")(command)


def deadline_option(default_s: float, what: str) -> Callable[[F], F]:
    """Add ``--deadline``: how long a command waits for ``what``."""
    return click.option(
        "--deadline",
        "deadline_s",
        type=click.FloatRange(min=0, min_open=True),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help=f"How long to wait {what}.",
    )


def found(name: str) -> RunningKernel:
    """Find the kernel that a person means.

    Raises:
        ConfigError: none, more than one, or one that has ended.
    """
    from unstuck.running import choose

    return choose(name)


@contextmanager
def reached(name: str) -> Generator[Target]:
    """Find a kernel and connect to it; when it stops answering, the command ends with code 1."""
    from unstuck.control import Control
    from unstuck.vitals import implementation_of

    kernel = found(name)
    with Control(kernel.connection) as control:
        try:
            implementation = implementation_of(control, deadline_s=ANSWER_S)
            yield Target(kernel, control, implementation)
        except ConfigError:
            raise
        except KernelError as error:
            how = f"; process {kernel.pid}" if kernel.pid else ""
            raise Failed(
                f"{kernel.describe()}: {error}{how}; 'unstuck kill --now' ends it"
            ) from error
