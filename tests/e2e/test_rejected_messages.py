"""Rubbish, forgeries and replays against a running kernel: it says why, drops them, and goes on."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq

from e2e.spec import ours
from unstuck.typing import SocketID
from unstuck_broker.connection import read_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.kernel_client import Kernel

pytestmark = ours

DELIMITER = b"<IDS|MSG>"
HEADER = b'{"msg_id":"1","msg_type":"execute_request"}'


class Stranger:
    """A client that sends frames as they are."""

    def __init__(self, kernel: Kernel, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Connect to a kernel's shell and control channels."""
        self.session = kernel.session
        connection = read_connection(Path(kernel.manager.connection_file))
        self.sockets: dict[SocketID, zmq.Socket[bytes]] = {}
        for channel in (SocketID.shell, SocketID.control):
            self.sockets[channel] = context.socket(zmq.DEALER)
            self.sockets[channel].connect(connection.endpoint(channel))

    def send(self, *frames: bytes) -> None:
        """Send frames on both channels."""
        for socket in self.sockets.values():
            socket.send_multipart(frames)

    def send_signed(self, *json_frames: bytes) -> None:
        """Send four JSON frames on shell with the right signature."""
        signature = self.session.sign(list(json_frames))
        self.sockets[SocketID.shell].send_multipart([DELIMITER, signature, *json_frames])


@pytest.fixture
def stranger(kernel: Kernel) -> Iterator[Stranger]:
    with zmq.Context() as context:
        made = Stranger(kernel, context)
        yield made
        for socket in made.sockets.values():
            socket.close(linger=0)


def check_it_goes_on(kernel: Kernel, *wanted: str) -> None:
    """Wait for a log line with all of this; then run a cell and ask control."""
    kernel.wait(
        lambda: any(all(map(line.__contains__, wanted)) for line in kernel.log_text.splitlines()),
        f"log line with {wanted}",
    )
    kernel.run_ok("6 * 7")
    assert kernel.request("kernel_info_request", channel="control").status == "ok"


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([b""], "no <IDS|MSG> delimiter in 2 frames of"),
        ([b"one", b"two", b"three", b"four"], "no <IDS|MSG> delimiter in 5 frames of"),
        ([DELIMITER], "0 frames after the delimiter"),
        ([DELIMITER, b"signature", HEADER, b"{}"], "3 frames after the delimiter"),
        ([DELIMITER, b"", HEADER, b"{}", b"{}", b"{}"], "the message is not signed"),
        ([DELIMITER, b"0" * 64, HEADER, b"{}", b"{}", b"{}"], "bad signature b'0000"),
        ([DELIMITER] * 6, "bad signature b'<IDS|MSG>'"),
    ],
)
def test_malformed_and_forged_messages_are_dropped_with_the_reason(
    kernel: Kernel, stranger: Stranger, frames: list[bytes], why: str
) -> None:
    stranger.send(*frames)
    check_it_goes_on(kernel, "channel=shell", why)
    check_it_goes_on(kernel, "channel=control", why)


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([b"no json", b"{}", b"{}", b"{}"], "the header b'no json' is no JSON"),
        ([b"[1]", b"{}", b"{}", b"{}"], "the header b'[1]' is no JSON object"),
        ([b"{}", b"{}", b"{}", b"{}"], "the header has no msg_id"),
        ([HEADER, b"{}", b"5", b"{}"], "the metadata b'5' is no JSON object"),
        ([HEADER, b"{", b"{}", b"{}"], "the parent_header b'{' is no JSON"),
        ([HEADER, b"{}", b"{}", b"\xff\xfe\x00"], "is neither JSON nor UTF-8"),
        ([HEADER, b"{}", b"{}", b'{"code":' + b"[" * 100_000], "cannot be read"),
        ([b'{"msg_id":5,"msg_type":"x"}', b"{}", b"{}", b"{}"], "msg_id is no string but 5"),
        ([b'{"msg_id":"1","msg_type":{}}', b"{}", b"{}", b"{}"], "msg_type is no string but dict"),
    ],
)
def test_signed_messages_with_bad_frames_are_dropped_with_the_reason(
    kernel: Kernel, stranger: Stranger, frames: list[bytes], why: str
) -> None:
    stranger.send_signed(*frames)
    check_it_goes_on(kernel, "channel=shell", why)


def test_a_replayed_cell_does_not_run_again(kernel: Kernel, stranger: Stranger) -> None:
    kernel.run_ok("runs = 0")
    content = json.dumps({"code": "runs += 1", "silent": False}).encode()
    frames = [HEADER, b"{}", b"{}", content]
    signature = stranger.session.sign(frames)
    shell = stranger.sockets[SocketID.shell]
    for _ in range(3):
        shell.send_multipart([DELIMITER, signature, *frames])
    kernel.wait(lambda: kernel.log_text.count("replayed message") >= 2, "two log lines")
    kernel.wait(lambda: kernel.evaluate("runs") == "1", "one run")


def test_a_hundred_megabytes_of_garbage_do_not_stop_the_next_cell(
    kernel: Kernel, stranger: Stranger
) -> None:
    garbage = secrets.token_bytes(1 << 20) * 100
    for socket in stranger.sockets.values():
        socket.send_multipart([garbage, garbage[:1000]], copy=False)
    check_it_goes_on(kernel, "no <IDS|MSG> delimiter in 3 frames of 104858")
    for socket in stranger.sockets.values():
        socket.send_multipart([DELIMITER, b"0" * 64, garbage, b"{}", b"{}", b"{}"], copy=False)
    check_it_goes_on(kernel, "bad signature b'0000")


def test_half_an_emoji_and_bad_utf8_in_a_cell_reach_it_replaced(
    kernel: Kernel, stranger: Stranger
) -> None:
    content = b'{"code":"text = \'\\ud83d \xff\'"}'
    header = b'{"msg_id":"odd","msg_type":"execute_request"}'
    frames = [header, b"{}", b"{}", content]
    shell = stranger.sockets[SocketID.shell]
    shell.send_multipart([DELIMITER, stranger.session.sign(frames), *frames])
    assert shell.poll(20_000)
    assert json.loads(shell.recv_multipart()[-1])["status"] == "ok"
    assert kernel.evaluate("ascii(text)") == repr(ascii("\ufffd \ufffd"))
