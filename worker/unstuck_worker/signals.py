"""The module ``signal`` as cells see it: what we have set there is not seen, and not lost.

Event loops that run inside a cell (trio's, asyncio's Runner) handle SIGINT themselves where they
find Python's own handler, put that back at their end, and warn of a wakeup descriptor that is not
theirs. Where they find another handler, a KeyboardInterrupt in the middle of them breaks them.

Threads: as in the module: the main one changes, any may ask.
"""

from __future__ import annotations

import signal as module
from functools import wraps
from signal import SIGINT, default_int_handler, getsignal, set_wakeup_fd, signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Signals:
    """Our handler of SIGINT where a cell sees Python's, our descriptor where it sees none."""

    def __init__(self, handler: Any) -> None:  # noqa: ANN401  (as the module's)
        """Handle SIGINT by ``handler``, once that is installed."""
        self._handler = handler
        self._descriptor = -1
        self._functions = {
            "signal": _stand_in(signal, self._signal),
            "getsignal": _stand_in(getsignal, self._getsignal),
            "set_wakeup_fd": _stand_in(set_wakeup_fd, self._set_wakeup_fd),
        }

    def install(self, wakeup_descriptor: int) -> None:
        """Handle SIGINT, and have each signal leave a byte; main thread only."""
        self._descriptor = wakeup_descriptor
        signal(SIGINT, self._handler)
        set_wakeup_fd(wakeup_descriptor, warn_on_full_buffer=False)
        _replace(self._functions)

    def handle_interrupts(self) -> None:
        """Take SIGINT back from whatever handles it; main thread only."""
        if not self.handles_interrupts():
            signal(SIGINT, self._handler)

    def handles_interrupts(self) -> bool:
        """Say whether SIGINT comes to us."""
        return getsignal(SIGINT) is self._handler

    def _signal(self, number: int, handler: Any, /) -> Any:  # noqa: ANN401
        """Set the handler of a signal, and give the one before."""
        if number == SIGINT and handler is default_int_handler:
            handler = self._handler
        return self._shown(signal(number, handler))

    def _getsignal(self, number: int, /) -> Any:  # noqa: ANN401
        """Give the handler of a signal."""
        return self._shown(getsignal(number))

    def _set_wakeup_fd(self, descriptor: int, /, *, warn_on_full_buffer: bool = True) -> int:
        """Set the descriptor that gets a byte for each signal, and give the one before."""
        if descriptor == -1:
            descriptor, warn_on_full_buffer = self._descriptor, False
        before = set_wakeup_fd(descriptor, warn_on_full_buffer=warn_on_full_buffer)
        return -1 if before == self._descriptor else before

    def _shown(self, handler: Any) -> Any:  # noqa: ANN401
        return default_int_handler if handler is self._handler else handler


def _stand_in(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that looks like the module's, and is pickled by its name as well."""

    @wraps(original)
    def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        return ours(*arguments, **options)

    call.__module__ = module.__name__
    return call


def leave() -> None:
    """Leave signals to Python: this is a forked process."""
    _replace({"signal": signal, "getsignal": getsignal, "set_wakeup_fd": set_wakeup_fd})
    set_wakeup_fd(-1)
    signal(SIGINT, default_int_handler)


def _replace(functions: dict[str, Callable[..., Any]]) -> None:
    for name, function in functions.items():
        setattr(module, name, function)
