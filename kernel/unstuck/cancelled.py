"""The error of a cancelled future; apart from the future because it alone needs anyio."""

from __future__ import annotations

from anyio import ClosedResourceError


class FutureCancelledError(ClosedResourceError):
    """The result of a future that has been cancelled was asked for."""


class CallerStoppedError(ClosedResourceError):
    """A Caller was used after it had stopped."""
