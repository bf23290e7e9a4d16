"""Every error that unstuck raises on purpose, as one tree."""

from __future__ import annotations


class KernelError(Exception):
    """The root of all errors of ours."""


class WireError(KernelError):
    """Bytes on a lane that are no lane message: the worker that wrote them is killed."""


class ClientError(KernelError):
    """A Jupyter message that is malformed, badly signed or replayed: logged and dropped."""


class WorkerDied(KernelError):
    """The worker ended while something still needed it."""

    def __init__(self, exit_code: int | None, signal_number: int | None, state: str) -> None:
        """Say how the worker ended (exit code or signal) and in which state it was."""
        how = f"signal {signal_number}" if signal_number is not None else f"exit code {exit_code}"
        super().__init__(f"the worker died ({how}) while {state}")
        self.exit_code = exit_code
        self.signal_number = signal_number
        self.state = state


class ConfigError(KernelError):
    """A setting, file or option that cannot be used: one line for the user, exit code 2."""
