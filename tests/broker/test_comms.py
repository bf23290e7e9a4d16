"""The broker's mirror of the open comms."""

from __future__ import annotations

import pytest

from pump import Pump, make_request
from unstuck_broker.comms import CommMirror
from words import tell


def comm(comm_id: str = "c1", target: str = "t") -> bytes:
    return f'{{"comm_id": "{comm_id}", "target_name": "{target}"}}'.encode()


def test_comms_are_listed_by_their_target() -> None:
    mirror = CommMirror()
    mirror.watch("comm_open", comm("c1", "t"))
    mirror.watch("comm_open", comm("c2", "u"))
    both = {"c1": {"target_name": "t"}, "c2": {"target_name": "u"}}
    assert mirror.info(None) == both
    assert mirror.info("u") == {"c2": {"target_name": "u"}}
    assert mirror.info("v") == {}


def test_a_closed_comm_is_forgotten() -> None:
    mirror = CommMirror()
    mirror.watch("comm_open", comm())
    mirror.watch("comm_close", comm())
    mirror.watch("comm_close", comm())
    assert mirror.info(None) == {}


def test_closing_all_gives_each_id_once() -> None:
    mirror = CommMirror()
    mirror.watch("comm_open", comm("c1"))
    mirror.watch("comm_open", comm("c2"))
    assert mirror.close_all() == ["c1", "c2"]
    assert mirror.close_all() == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"comm_id": 1}', b"\xff"])
def test_a_malformed_comm_message_is_not_mirrored(content: bytes) -> None:
    mirror = CommMirror()
    mirror.watch("comm_open", content)
    assert mirror.info(None) == {}


def test_other_messages_are_not_read() -> None:
    mirror = CommMirror()
    mirror.watch("comm_msg", comm())
    mirror.watch("display_data", comm())
    assert mirror.info(None) == {}


def test_a_comm_that_a_client_opens_is_listed_once_the_worker_has_it() -> None:
    pump = Pump()
    pump.send(make_request("comm_open", "m1", content=comm()))
    pump.control("comm_info_request", "m2")
    assert pump.ledger.replies["m2"] == [{"status": "ok", "comms": {}}]
    pump.ready()
    pump.control("comm_info_request", "m3")
    assert pump.ledger.replies["m3"] == [{"status": "ok", "comms": {"c1": {"target_name": "t"}}}]


def test_comms_of_a_dead_worker_are_closed_and_those_that_wait_for_the_next_are_not() -> None:
    pump = Pump()
    pump.ready()
    pump.execute("m1")
    pump.publish("m1", "comm_open", comm("old"))
    assert tell(pump.die())[-4:] == [
        "everybody: comm_close",
        "spawn",
        "everybody: restarting",
        "everybody: starting",
    ]
    pump.send(make_request("comm_open", "m2", content=comm("new")))
    pump.renew()
    assert pump.core.comms.info(None) == {"new": {"target_name": "t"}}
