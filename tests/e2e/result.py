"""What came back for one request: its replies, and everything on iopub that names it as parent."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]


class Result:
    """The answers to one request; it grows while messages arrive.

    Threads: none; the `Kernel` that sent the request fills it.
    """

    def __init__(self, header: dict[str, Any], *, has_reply: bool) -> None:
        """Wait for the answers to the request with this header."""
        self.header = header
        self.has_reply = has_reply
        self.replies: list[Message] = []
        self.iopub: list[Message] = []

    @property
    def msg_id(self) -> str:
        """Name the request."""
        return str(self.header["msg_id"])

    @property
    def states(self) -> list[str]:
        """List the execution states in order of arrival."""
        return [str(m["content"]["execution_state"]) for m in self.of("status")]

    @property
    def is_complete(self) -> bool:
        """Tell whether the reply and the idle state are there."""
        return "idle" in self.states and bool(self.replies) is self.has_reply

    @property
    def reply(self) -> Message:
        """Give the one reply."""
        assert len(self.replies) == 1, f"{len(self.replies)} replies to {self.header}"
        return self.replies[0]

    @property
    def content(self) -> dict[str, Any]:
        """Give the reply's content."""
        content: dict[str, Any] = self.reply["content"]
        return content

    @property
    def status(self) -> str:
        """Give the reply's status."""
        return str(self.content["status"])

    def of(self, kind: str) -> list[Message]:
        """List the iopub messages of one type."""
        return [m for m in self.iopub if m["header"]["msg_type"] == kind]

    @property
    def kinds(self) -> list[str]:
        """List the types of the iopub messages between busy and idle, in order."""
        kinds = [str(m["header"]["msg_type"]) for m in self.iopub]
        return [kind for kind in kinds if kind != "status"]

    def text(self, name: str) -> str:
        """Join the text of one stream."""
        streams = self.of("stream")
        return "".join(m["content"]["text"] for m in streams if m["content"]["name"] == name)

    @property
    def stdout(self) -> str:
        """Join what went to stdout."""
        return self.text("stdout")

    @property
    def stderr(self) -> str:
        """Join what went to stderr."""
        return self.text("stderr")

    @property
    def value(self) -> str:
        """Give the plain text of the one execute_result."""
        (message,) = self.of("execute_result")
        return str(message["content"]["data"]["text/plain"])

    @property
    def displays(self) -> list[dict[str, Any]]:
        """List the mime bundles of display_data messages."""
        return [m["content"]["data"] for m in self.of("display_data")]

    @property
    def error(self) -> dict[str, Any]:
        """Give the content of the one error message on iopub."""
        (message,) = self.of("error")
        content: dict[str, Any] = message["content"]
        return content

    def __repr__(self) -> str:
        """Show what has arrived, for a failed wait."""
        replies = [(m["header"]["msg_type"], str(m["content"])[:300]) for m in self.replies]
        iopub = [(m["header"]["msg_type"], str(m["content"])[:200]) for m in self.iopub[-12:]]
        kind = self.header["msg_type"]
        return f"<{kind} replies={replies} iopub({len(self.iopub)})=...{iopub}>"
