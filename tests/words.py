"""Actions of the core in words, so that a test can compare a whole list of them at a glance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from unstuck.protocol import (
    CloseSubshell,
    ControlParent,
    InputReply,
    Interrupt,
    OpenSubshell,
    Run,
    ToWorker,
)
from unstuck_broker.actions import (
    Action,
    AskClient,
    DropCopies,
    Exit,
    KillWorker,
    LendToWorker,
    Log,
    MeasureUsage,
    PromoteCopy,
    PublishToClients,
    ReplyToClient,
    SendToWorker,
    SignalWorker,
    SpawnWorker,
    StopWorker,
    TakeStack,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def tell(actions: Sequence[Action]) -> list[str]:
    """Say in words what was done, all of it and in order, to be compared whole.

    Left out are the execute_input that follows each cell's busy (see test_numbers.py) and what a
    worker hears of control before a job (see test_controlparent.py).
    """
    return [_tell(action) for action in actions if not (is_input(action) or is_parent(action))]


def is_input(action: Action) -> bool:
    """Tell whether a cell and its number are shown."""
    return isinstance(action, PublishToClients) and action.msg_type == "execute_input"


def is_parent(action: Action) -> bool:
    """Tell whether the worker learns of a request on control."""
    return isinstance(action, SendToWorker) and isinstance(action.message, ControlParent)


def is_nobodys(parent: bytes) -> bool:
    """Tell whether a message belongs to no request: the kernel's own busy."""
    return str(json.loads(parent).get("msg_id", "")).endswith("_nobody")


def _tell(action: Action) -> str:
    match action:
        case ReplyToClient(request, msg_type, content):
            return f"{request.header.msg_id} {msg_type} {_outcome(content)}".rstrip()
        case PublishToClients(msg_type, content, parent):
            about = json.loads(parent).get("msg_id", "everybody:")
            about = "still" if is_nobodys(parent) else about
            return f"{about} {_tell_publication(msg_type, json.loads(content))}"
        case AskClient(request, content, number):
            prompt = json.loads(content)["prompt"]
            return f"{request.header.msg_id} input_request {number} {prompt!r}"
        case SendToWorker(lane, message):
            return f"{lane.value} lane: {_tell_order(message)}"
        case LendToWorker(run):
            return f"lend {json.loads(run.header)['msg_id']}"
        case SignalWorker(tree):
            return "SIGINT to the tree" if tree else "SIGINT"
        case KillWorker(reason):
            return f"kill: {reason.words}"
        case StopWorker(grace_s):
            return f"stop within {grace_s:g} s"
        case SpawnWorker(delay_s, donor):
            words = f"spawn in {delay_s:g} s" if delay_s else "spawn"
            return words if donor is None else f"{words} with donor {donor}"
        case PromoteCopy(number):
            return f"promote copy {number}"
        case DropCopies(numbers):
            return f"drop copies {', '.join(map(str, numbers))}"
        case TakeStack(number):
            return f"take stack {number}"
        case MeasureUsage(job):
            return f"measure {job}"
        case Exit(restart):
            return "exit to restart" if restart else "exit"
        case Log(line):
            return f"log {line}"


def _outcome(content: bytes) -> str:
    reply = json.loads(content)
    return f"{reply.get('status', '')} {reply.get('ename', '')}".rstrip()


def _tell_publication(msg_type: str, content: dict[str, Any]) -> str:
    match msg_type:
        case "status":
            return str(content["execution_state"])
        case "stream":
            return f"{content['name']} {content['text']!r}"
        case "error":
            return f"error {content['ename']}"
        case _:
            return msg_type


def _tell_order(message: ToWorker) -> str:
    match message:
        case Run(header=header):
            return f"run {json.loads(header)['msg_id']}"
        case Interrupt(jobs, hard):
            return f"interrupt {', '.join(map(str, jobs))}{' hard' if hard else ''}"
        case InputReply(request, value):
            return f"input {request} {value!r}"
        case OpenSubshell(subshell) | CloseSubshell(subshell):
            return f"{type(message).__name__} {subshell}"
        case _:
            return type(message).__name__


def shown(lines: Sequence[str]) -> list[str]:
    """Leave out the log."""
    return [line for line in lines if not line.startswith("log ")]


def evalues(actions: Sequence[Action]) -> list[str]:
    """Give the explanations in error replies."""
    contents = [json.loads(a.content) for a in actions if isinstance(a, ReplyToClient)]
    return [str(content["evalue"]) for content in contents if "evalue" in content]
