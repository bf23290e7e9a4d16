"""Stream text on its way out: neighbours of one cell and name become one message."""

from __future__ import annotations

from unstuck.protocol import StreamName


class _Pending:
    """Text of one cell that waits for more; always of one stream: the two keep their order."""

    __slots__ = ("due_s", "name", "parts", "size")

    def __init__(self, name: StreamName, due_s: float) -> None:
        self.name = name
        self.due_s = due_s
        self.parts: list[str] = []
        self.size = 0


Joined = tuple[bytes, StreamName, str]
"""Parent header, stream, text: one stream message to send."""


class StreamJoiner:
    """Joins stream text per parent; the core flushes a parent before each other message of it."""

    __slots__ = ("_flush_s", "_max_size", "_pending")

    def __init__(self, flush_s: float, max_size: int) -> None:
        """Hold text for at most ``flush_s`` seconds and ``max_size`` characters."""
        self._flush_s = flush_s
        self._max_size = max_size
        self._pending: dict[bytes, _Pending] = {}

    def add(self, parent: bytes, name: StreamName, text: str, now: float) -> list[Joined]:
        """Take text; give the messages that are complete by it."""
        ready: list[Joined] = []
        pending = self._pending.get(parent)
        if pending is not None and pending.name is not name:
            ready += self.flush(parent)
            pending = None
        if pending is None:
            pending = self._pending[parent] = _Pending(name, now + self._flush_s)
        pending.parts.append(text)
        pending.size += len(text)
        if pending.size >= self._max_size:
            ready += self.flush(parent)
        return ready

    def flush(self, parent: bytes) -> list[Joined]:
        """Give what waits of one parent."""
        pending = self._pending.pop(parent, None)
        return [] if pending is None else [(parent, pending.name, "".join(pending.parts))]

    def flush_due(self, now: float) -> list[Joined]:
        """Give what has waited long enough."""
        if not self._pending:
            return []
        due = [parent for parent, pending in self._pending.items() if pending.due_s <= now]
        return [joined for parent in due for joined in self.flush(parent)]

    def flush_all(self) -> list[Joined]:
        """Give everything."""
        return [joined for parent in list(self._pending) for joined in self.flush(parent)]

    def deadline_s(self) -> float | None:
        """Give the time of the next flush; dicts keep their order, so the oldest is the first."""
        first = next(iter(self._pending.values()), None)
        return None if first is None else first.due_s


class OutputMeter:
    """Counts the output of one cell against its limit."""

    __slots__ = ("cut", "left")

    def __init__(self, limit: int) -> None:
        """Allow ``limit`` bytes; 0 is no limit."""
        self.left: int | None = limit or None
        self.cut = 0
        """Bytes that were not sent."""

    def take(self, size: int) -> bool:
        """Count ``size`` bytes; False when they are beyond the limit."""
        if self.left is None:
            return True
        if self.cut or size > self.left:
            self.cut += size
            return False
        self.left -= size
        return True
