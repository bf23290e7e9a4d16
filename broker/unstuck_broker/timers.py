"""Deadlines of requests, by their number; a request that is over takes its deadline with it."""

from __future__ import annotations

import heapq

_SPARE = 64
"""So many deadlines of requests that are over may wait to be swept out."""


class Timers:
    """At most one deadline for a request, in monotonic seconds."""

    __slots__ = ("_due_s", "_heap")

    def __init__(self) -> None:
        """Start with none."""
        self._heap: list[tuple[float, int]] = []
        self._due_s: dict[int, float] = {}

    def __len__(self) -> int:
        """Count the requests that have a deadline."""
        return len(self._due_s)

    def set(self, number: int, due_s: float) -> None:
        """Give a request its deadline; an earlier one of the same request is forgotten."""
        self._due_s[number] = due_s
        heapq.heappush(self._heap, (due_s, number))

    def drop(self, number: int) -> None:
        """Forget the deadline of a request, if it has one."""
        if self._due_s.pop(number, None) is None:
            return
        if len(self._heap) > 2 * len(self._due_s) + _SPARE:
            self._heap = [(due_s, number) for number, due_s in self._due_s.items()]
            heapq.heapify(self._heap)

    def deadline_s(self) -> float | None:
        """Give the earliest deadline."""
        while self._heap and not self._is_set(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> list[int]:
        """Take out the requests whose deadline has passed, the earliest first."""
        numbers: list[int] = []
        while (due_s := self.deadline_s()) is not None and due_s <= now:
            _, number = heapq.heappop(self._heap)
            del self._due_s[number]
            numbers.append(number)
        return numbers

    def _is_set(self, due_s: float, number: int) -> bool:
        return self._due_s.get(number) == due_s
