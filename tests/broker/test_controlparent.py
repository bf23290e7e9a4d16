"""The newest request on control, told to the worker with its next job."""

from __future__ import annotations

import msgspec

from pump import Pump, make_request
from unstuck.protocol import ControlParent
from unstuck.typing import SocketID
from unstuck_broker.actions import Lane, SendToWorker
from unstuck_broker.controlparent import CONTENT_BYTES, LastControl
from words import tell


def told(pump: Pump, msg_id: str) -> list[SendToWorker]:
    """Run a cell; give what goes to the worker before it."""
    orders = [action for action in pump.execute(msg_id) if isinstance(action, SendToWorker)]
    pump.finish(msg_id)
    return [order for order in orders if isinstance(order.message, ControlParent)]


def test_the_worker_is_told_once_and_before_its_next_job(pump: Pump) -> None:
    assert told(pump, "m1") == []
    pump.control("comm_info_request", "c1")
    pump.control("kernel_info_request", "c2")
    [order] = told(pump, "m2")
    assert order.lane is Lane.main
    assert isinstance(order.message, ControlParent)
    assert b'"c2"' in order.message.header
    assert order.message.idents == [b"client"]
    assert told(pump, "m3") == []


def test_requests_on_control_send_nothing_to_a_worker_that_is_busy(pump: Pump) -> None:
    pump.execute("m1")
    for number in range(100):
        shown = tell(pump.control("kernel_info_request", f"c{number}"))
        assert not [line for line in shown if "lane" in line]


def test_another_worker_is_told_anew(pump: Pump) -> None:
    pump.control("kernel_info_request", "c1")
    assert len(told(pump, "m1")) == 1
    pump.die()
    pump.renew()
    assert len(told(pump, "m2")) == 1


def test_a_worker_is_told_nothing_where_nothing_came_on_control(pump: Pump) -> None:
    pump.die()
    pump.renew()
    assert told(pump, "m1") == []


def test_the_buffers_of_a_request_are_not_kept() -> None:
    last = LastControl()
    buffer = bytearray(8)
    request = make_request("comm_msg", "c1", channel=SocketID.control)
    last.heard(msgspec.structs.replace(request, buffers=(memoryview(buffer),)))
    del request
    buffer.clear()  # Fails while somebody has a view.


def test_a_large_content_is_left_out() -> None:
    last = LastControl()
    content = {"text": "x" * CONTENT_BYTES}
    last.heard(make_request("debug_request", "c1", channel=SocketID.control, content=content))
    news = last.news()
    assert news is not None
    assert news.content == b"{}"
    assert b'"c1"' in news.header
