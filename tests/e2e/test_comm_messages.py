"""Comms: opened, used and closed from both sides, with metadata and buffers."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

TARGET = """
from comm import get_comm_manager
opened, got = [], []
def on_open(comm, message):
    opened.append(comm)
    def on_message(message):
        got.append(message)
        comm.send({'echo': message['content']['data']}, buffers=message['buffers'])
    comm.on_msg(on_message)
    comm.on_close(lambda message: print('closed', message['content']['data']))
    comm.send({'hello': message['content']['data']})
get_comm_manager().register_target('echo', on_open)
"""


def _open(kernel: Kernel, target: str = "echo") -> str:
    comm_id = uuid.uuid4().hex
    content = {"comm_id": comm_id, "target_name": target, "data": {"n": 1}}
    kernel.finish(kernel.send("comm_open", content))
    return comm_id


def test_a_comm_from_the_frontend_is_answered_and_closed(kernel: Kernel) -> None:
    kernel.run_ok(TARGET)
    comm_id = uuid.uuid4().hex
    content = {"comm_id": comm_id, "target_name": "echo", "data": {"n": 1}}
    opened = kernel.finish(kernel.send("comm_open", content))
    (hello,) = opened.of("comm_msg")
    assert hello["content"] == {"comm_id": comm_id, "data": {"hello": {"n": 1}}}

    message = {"comm_id": comm_id, "data": {"x": [1, "é"]}}
    sent = kernel.finish(kernel.send("comm_msg", message, buffers=[b"\x00\x01", b"", b"abc"]))
    (echo,) = sent.of("comm_msg")
    assert echo["content"]["data"] == {"echo": {"x": [1, "é"]}}
    assert [bytes(buffer) for buffer in echo["buffers"]] == [b"\x00\x01", b"", b"abc"]
    # Views, as ipywidgets' FileUpload documents what it gives.
    views = kernel.run_ok("[view.tobytes() for view in got[0]['buffers']]")
    assert views.value == "[b'\\x00\\x01', b'', b'abc']"

    closed = kernel.finish(kernel.send("comm_close", {"comm_id": comm_id, "data": {"bye": 1}}))
    assert closed.stdout == "closed {'bye': 1}\n"
    assert comm_id not in kernel.request("comm_info_request").content["comms"]


def test_comm_info_lists_open_comms_by_target(kernel: Kernel) -> None:
    kernel.run_ok(TARGET)
    comm_id = _open(kernel)
    comms = kernel.request("comm_info_request").content["comms"]
    assert comms[comm_id] == {"target_name": "echo"}
    one = kernel.request("comm_info_request", {"target_name": "echo"}).content["comms"]
    assert comm_id in one
    assert kernel.request("comm_info_request", {"target_name": "none"}).content["comms"] == {}


def test_a_comm_from_the_kernel_opens_sends_and_closes(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "from comm import create_comm\n"
        "comm = create_comm('from_kernel', data={'a': 1}, metadata={'m': 2}, buffers=[b'xyz'])\n"
        "comm.send({'b': 2}, buffers=[memoryview(b'abcdef')[::2].tobytes()])\n"
        "comm.close({'c': 3})"
    )
    assert result.kinds == ["execute_input", "comm_open", "comm_msg", "comm_close"]
    (opened,), (sent,), (closed,) = (
        result.of(kind) for kind in ("comm_open", "comm_msg", "comm_close")
    )
    assert opened["content"]["target_name"] == "from_kernel"
    assert opened["content"]["data"] == {"a": 1}
    assert opened["metadata"] == {"m": 2}
    assert bytes(opened["buffers"][0]) == b"xyz"
    assert bytes(sent["buffers"][0]) == b"ace"
    assert closed["content"]["data"] == {"c": 3}
    ids = {message["content"]["comm_id"] for message in (opened, sent, closed)}
    assert len(ids) == 1


def test_an_unknown_target_is_closed_again(kernel: Kernel) -> None:
    comm_id = uuid.uuid4().hex
    content = {"comm_id": comm_id, "target_name": "nobody", "data": {}}
    result = kernel.finish(kernel.send("comm_open", content))
    (closed,) = result.of("comm_close")
    assert closed["content"]["comm_id"] == comm_id
    assert comm_id not in kernel.request("comm_info_request").content["comms"]


def test_a_message_to_an_unknown_comm_is_survived(kernel: Kernel) -> None:
    kernel.finish(kernel.send("comm_msg", {"comm_id": "no such comm", "data": {}}))
    kernel.finish(kernel.send("comm_close", {"comm_id": "no such comm", "data": {}}))
    assert kernel.run_ok("1 + 1").value == "2"


def test_a_failing_handler_is_survived(kernel: Kernel) -> None:
    kernel.run_ok(TARGET)
    kernel.run_ok(
        "def fail(comm, message):\n"
        "    comm.on_msg(lambda message: 1/0)\n"
        "get_comm_manager().register_target('fail', fail)"
    )
    comm_id = _open(kernel, "fail")
    kernel.finish(kernel.send("comm_msg", {"comm_id": comm_id, "data": {}}))
    assert kernel.run_ok("1 + 1").value == "2"


def test_messages_of_one_comm_are_handled_in_order(kernel: Kernel) -> None:
    kernel.run_ok(TARGET)
    comm_id = _open(kernel)
    sent = [
        kernel.send("comm_msg", {"comm_id": comm_id, "data": {"n": number}}) for number in range(50)
    ]
    for result in sent:
        kernel.finish(result)
    numbers = "[m['content']['data']['n'] for m in got]"
    assert kernel.evaluate(f"{numbers} == list(range(50))") == "True"


@ours
def test_an_awaiting_cell_receives_comm_messages(kernel: Kernel) -> None:
    kernel.run_ok(TARGET)
    comm_id = _open(kernel)
    busy = kernel.execute(
        "import asyncio\nprint('waiting')\n"
        "while not got: await asyncio.sleep(0.01)\ngot[0]['content']['data']"
    )
    kernel.wait_for_text(busy, "waiting")
    kernel.finish(kernel.send("comm_msg", {"comm_id": comm_id, "data": {"n": 7}}))
    assert kernel.finish(busy).value == "{'n': 7}"


@ours
def test_a_large_buffer_arrives_whole(kernel: Kernel) -> None:
    kernel.run_ok(TARGET)
    comm_id = _open(kernel)
    blob = bytes(range(256)) * 40_000
    sent = kernel.send("comm_msg", {"comm_id": comm_id, "data": {}}, buffers=[blob])
    (echo,) = kernel.finish(sent).of("comm_msg")
    assert bytes(echo["buffers"][0]) == blob
    assert kernel.run_ok("got[0]['buffers'][0].readonly").value == "True"


@ours
def test_comm_info_answers_while_a_cell_is_busy(kernel: Kernel) -> None:
    kernel.run_ok(TARGET)
    comm_id = _open(kernel)
    busy = kernel.execute("import time; time.sleep(1.0)")
    assert comm_id in kernel.request("comm_info_request").content["comms"]
    assert not busy.is_complete
    kernel.finish(busy)
