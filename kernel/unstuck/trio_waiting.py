"""A waiting task of trio; apart from the other waiters because importing trio takes long."""

from __future__ import annotations

import threading

import trio

from unstuck.waiting import here


class TrioWaiter:
    """A waiting trio task."""

    __slots__ = ("_event", "_ident", "_poster", "_token", "woken")

    def __init__(self) -> None:

        self.woken = False
        self._event: trio.Event = trio.Event()
        self._token: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()
        self._ident = threading.get_ident()
        poster = here.poster
        self._poster = poster if poster is not None and poster.hosts(self._token) else None

    def wake(self) -> None:
        self.woken = True
        if threading.get_ident() == self._ident:
            self.resume()
        elif self._poster is None or not self._poster.post(self):
            try:
                self._token.run_sync_soon(self.resume)
            except trio.RunFinishedError:
                return

    def resume(self) -> None:
        self._event.set()

    async def park(self, timeout_s: float | None) -> bool:

        if timeout_s is None:
            await self._event.wait()
        else:
            with trio.move_on_after(timeout_s):
                await self._event.wait()
        return self.woken
