"""What clients send, in from the sockets: each message becomes an event, channel by channel.

Threads: the broker's loop only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.errors import ClientError
from unstuck.typing import MsgType, SocketID
from unstuck_broker.events import Event, Received, Subscribed
from unstuck_broker.log import log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from unstuck_broker.sockets import Sockets
    from unstuck_broker.wire import Wire

_MESSAGES_AT_ONCE = 64
"""Of one channel, before the loop is asked again who else is waiting."""
ARRIVAL_S = 0.003
"""What was sent on shell before an interrupt is here by then: zmq's thread hands it over."""


class Reader:
    """Reads all channels while its loop runs."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sockets,
        wire: Wire,
        emit: Callable[[Event], None],
        is_full: Callable[[], bool],
        asked: Callable[[], None],
    ) -> None:
        """Turn the messages of clients into events.

        Args:
            loop: the broker's.
            sockets: where they come from.
            wire: verifies and reads them.
            emit: takes the events.
            is_full: says whether so much waits that shell is not read; `look_again` when less does.
            asked: told before each request on control is emitted.
        """
        self._loop = loop
        self._sockets = sockets
        self._wire = wire
        self._emit = emit
        self._is_full = is_full
        self._asked = asked
        self._touched: set[SocketID] = set()
        self._interrupts: list[Event] = []
        """Interrupts that wait for what was sent before them; control waits behind them."""
        self.room_on_iopub: Callable[[], None] = lambda: None
        """Called when iopub may take messages again."""

    def start(self) -> None:
        """Read from now on."""
        for channel in SocketID:
            self._listen(channel)

    def stop(self) -> None:
        """Read no more."""
        for channel in SocketID:
            self._loop.remove_reader(self._sockets.fileno(channel))

    def _listen(self, channel: SocketID) -> None:
        self._loop.add_reader(self._sockets.fileno(channel), self.read, channel)
        self.look_again(channel)

    # --- messages ---------------------------------------------------------------------------------

    def read(self, channel: SocketID) -> None:
        """Take what clients sent on a channel; its descriptor tells of a change only once."""
        match channel:
            case SocketID.heartbeat:
                self._sockets.echo_heartbeat()
            case SocketID.iopub:
                self._read_subscriptions()
            case _:
                self._read_requests(channel)

    def _read_requests(self, channel: SocketID) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            if channel is SocketID.shell and self._is_full():
                return
            if channel is SocketID.control and self._interrupts:
                return
            if not self._take(channel):
                return
        self._loop.call_soon(self.read, channel)

    def _take(self, channel: SocketID) -> bool:
        """Take the next message of a channel, if there is one; what is no request is dropped."""
        frames = self._sockets.receive(channel)
        if frames is None:
            return False
        try:
            request = self._wire.parse(channel, frames)
        except ClientError as error:
            log(f"dropped channel={channel} why={str(error)!r}")
            return True
        if channel is SocketID.control:
            if request.kind is MsgType.interrupt_request:
                self.interrupt(Received(request))
                return True
            self._asked()
        self._emit(Received(request))
        return True

    def read_shell(self) -> None:
        """Take in all that has arrived on shell: what happens next aborts it."""
        while not self._is_full() and self._take(SocketID.shell):
            pass

    def _read_subscriptions(self) -> None:
        while (subscription := self._sockets.receive_subscription()) is not None:
            if subscription[:1] == b"\x01":
                self._emit(Subscribed(subscription[1:]))
        self.room_on_iopub()

    # --- interrupts -------------------------------------------------------------------------------

    def interrupt(self, event: Event) -> None:
        """Emit an interrupt when what was sent on shell before it has come, too.

        It aborts exactly what was there before it, and control is quicker than shell.
        """
        if not self._interrupts:
            self._loop.remove_reader(self._sockets.fileno(SocketID.control))
            self._loop.call_later(ARRIVAL_S, self.let_interrupts_in)
        self._interrupts.append(event)

    def let_interrupts_in(self) -> None:
        """Emit the interrupts that wait, and read control again."""
        if self._interrupts:
            self.read_shell()
            interrupts, self._interrupts = self._interrupts, []
            for event in interrupts:
                self._emit(event)
            self._listen(SocketID.control)

    # --- what descriptors do not tell -------------------------------------------------------------

    def touch(self, channel: SocketID) -> None:
        """Note that we sent on a channel: what came there meanwhile was told to nobody."""
        self._touched.add(channel)

    def look_again(self, channel: SocketID) -> None:
        """Read a channel soon, if something waits there."""
        if not self._touched:
            self._loop.call_soon(self.look_at_touched)
        self._touched.add(channel)

    def look_at_touched(self) -> None:
        """Read the channels soon that were touched, and where something waits."""
        touched, self._touched = self._touched, set()
        for channel in touched:
            if self._sockets.pending(channel):
                self._loop.call_soon(self.read, channel)
