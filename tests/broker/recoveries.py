"""What tests of recoveries share: cells that run, and the accounts that clients are given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from unstuck_broker.account import MIME_TYPE
from unstuck_broker.actions import Action, PublishToClients

if TYPE_CHECKING:
    from pump import Pump

LOST = "the worker died by SIGSEGV; all variables were lost"
BEFORE = "the variables are as they were before this cell"


def accounts(actions: list[Action]) -> list[dict[str, Any]]:
    """Give the data of the recoveries that are told."""
    shown_data = [
        json.loads(action.content)["data"]
        for action in actions
        if isinstance(action, PublishToClients) and action.msg_type == "display_data"
    ]
    return [data[MIME_TYPE] for data in shown_data]


def run_cell(pump: Pump, msg_id: str, count: int) -> None:
    """Run the cell of this number to its end."""
    pump.core.count = count
    pump.execute(msg_id)
    pump.finish(msg_id)
