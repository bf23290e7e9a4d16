"""Each cell is shown with its number when it starts; the broker counts as IPython does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from unstuck.protocol import Finished, Outcome
from unstuck_broker.actions import PublishToClients
from words import is_input, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pump import Pump
    from unstuck_broker.actions import Action


def shown(actions: Sequence[Action]) -> list[tuple[str, str, int]]:
    """List the cells that were shown: request, code, number."""
    found: list[tuple[str, str, int]] = []
    for action in actions:
        if isinstance(action, PublishToClients) and is_input(action):
            content = json.loads(action.content)
            parent = json.loads(action.parent_header)["msg_id"]
            found.append((parent, content["code"], content["execution_count"]))
    return found


def run(pump: Pump, msg_id: str, code: str = "1", **content: Any) -> list[tuple[str, str, int]]:  # noqa: ANN401
    """Run a cell to its end; give what was shown."""
    actions = pump.execute(msg_id, code, content=content)
    pump.finish(msg_id)
    return shown(actions)


def end(pump: Pump, msg_id: str, counter: int) -> None:
    """Let a cell end in a worker whose next number is ``counter``."""
    job = pump.job_of(msg_id)
    pump.jobs.pop(job)
    pump.say(Finished(job, Outcome.ok, b'{"status":"ok"}', counter=counter))


def test_a_cell_is_shown_behind_its_busy_and_before_it_runs(pump: Pump) -> None:
    actions = pump.execute("m1", "'é'")
    assert shown(actions) == [("m1", "'é'", 1)]
    assert [is_input(action) for action in actions] == [False, True, False]
    assert tell(actions) == ["m1 busy", "main lane: run m1"]


def test_cells_are_counted_as_ipython_counts(pump: Pump) -> None:
    assert run(pump, "m1") == [("m1", "1", 1)]
    assert run(pump, "m2", " \n") == [("m2", " \n", 2)]
    assert run(pump, "m3", store_history=False) == [("m3", "1", 2)]
    assert run(pump, "m4", silent=True) == []
    assert run(pump, "m5", store_history=True) == [("m5", "1", 2)]
    assert run(pump, "m6") == [("m6", "1", 3)]


def test_cells_beside_each_other_get_numbers_of_their_own(pump: Pump) -> None:
    numbers = [shown(pump.execute(f"m{n}", "##task"))[0][2] for n in range(3)]
    assert numbers == [1, 2, 3]


def test_the_worker_has_the_last_word_on_the_next_number(pump: Pump) -> None:
    pump.execute("m1", "get_ipython().execution_count = 41")
    end(pump, "m1", 42)
    assert run(pump, "m2") == [("m2", "1", 42)]
    pump.execute("m3", "##task")
    pump.execute("m4")
    end(pump, "m3", 44)  # It does not know of m4 yet.
    assert shown(pump.execute("m5", "##thread")) == [("m5", "##thread", 45)]


def test_the_next_worker_counts_anew(pump: Pump) -> None:
    run(pump, "m1")
    pump.execute("m2")
    pump.die()
    assert pump.ledger.replies["m2"][0]["execution_count"] == 2
    pump.renew()
    assert run(pump, "m3") == [("m3", "1", 1)]
