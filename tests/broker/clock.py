"""What stands where the loop stands: its time is a number, and it has one timer at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer:
    """What `Clock.call_later` gives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def cancel(self) -> None:
        self._clock.timer = None


class Clock:
    """A loop whose time goes on when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timer: tuple[float, Callable[..., None], tuple[Any, ...]] | None = None
        """When it is due, and what is called then."""

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> Timer:  # noqa: ANN401
        assert self.timer is None
        self.timer = (self.now_s + delay_s, call, arguments)
        return Timer(self)

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> Timer:  # noqa: ANN401
        return self.call_later(0.0, call, *arguments)

    def wake(self, first: Callable[[], object] = lambda: None) -> None:
        """Let the time of the timer come; ``first`` is called before it."""
        assert self.timer is not None
        (self.now_s, call, arguments), self.timer = self.timer, None
        first()
        call(*arguments)
