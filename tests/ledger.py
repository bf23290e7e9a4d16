"""The books of what each request got: one busy, one reply, one idle, in this order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from unstuck.typing import SocketID
from unstuck_broker import replies
from unstuck_broker.actions import Action, PublishToClients, ReplyToClient
from words import is_nobodys

if TYPE_CHECKING:
    from unstuck_broker.wire import Request


class Ledger:
    """Books what each request got, and complains about all that is out of order."""

    def __init__(self) -> None:
        """Start with no request."""
        self.requests: dict[bytes, Request] = {}
        self.stages: dict[bytes, str] = {}
        """Of each request, by its header: received, busy, replied or idle."""
        self.replies: dict[str, list[dict[str, Any]]] = {}
        """By message id."""
        self._last_state = ""
        self.somebody_listens = False
        """Before, publications are held, and come out among the answers of later requests."""

    def received(self, request: Request) -> None:
        """Expect answers."""
        if request.channel is SocketID.stdin:
            return
        assert request.header_json not in self.stages, "the test sent a request twice"
        self.requests[request.header_json] = request
        self.stages[request.header_json] = "received"

    def take(self, action: Action) -> None:
        """Book what clients get."""
        match action:
            case ReplyToClient(request, msg_type, content):
                assert replies.has_reply(request.header.msg_type), "a reply where there is none"
                assert msg_type == replies.reply_type(request.header.msg_type)
                self._move(request.header_json, "busy", "replied")
                answers = self.replies.setdefault(request.header.msg_id, [])
                answers.append(json.loads(content))
            case PublishToClients("status", content, parent):
                self._status(json.loads(content)["execution_state"], parent)
            case _:
                pass

    def _status(self, state: str, parent: bytes) -> None:
        if state == "busy":
            if is_nobodys(parent):
                assert self._last_state == "idle", "busy again without an idle before"
                assert "busy" in self.stages.values(), "busy with nothing that runs"
            else:
                self._move(parent, "received", "busy")
        elif state == "restarting" and self.somebody_listens:
            assert not self.pending(), f"restarting while {self.pending()} have no answer"
        elif state == "idle" and parent != b"{}":
            request = self.requests[parent]
            has_reply = replies.has_reply(request.header.msg_type)
            self._move(parent, "replied" if has_reply else "busy", "idle")
        self._last_state = state

    def _move(self, header: bytes, old: str, new: str) -> None:
        stage = self.stages[header]
        assert stage == old, f"{header!r} became {new} when it was {stage}"
        self.stages[header] = new

    def pending(self) -> list[bytes]:
        """Name the requests that have not all of their answers."""
        return [header for header, stage in self.stages.items() if stage != "idle"]
