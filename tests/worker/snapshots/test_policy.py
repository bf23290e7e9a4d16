"""When a snapshot is taken: the policy as a table."""

from __future__ import annotations

from typing import Any

import pytest

from unstuck_worker.snapshots.libraries import donor_reasons
from unstuck_worker.snapshots.policy import Moment, When, decide, mix_cost, whole_cost

TABLE: list[tuple[str, dict[str, Any], bool, str]] = [
    # (what is seen, as a Moment, is one taken, why not)
    ("off, idle after a cell", {"policy": "off", "cells": 1}, False, ""),
    ("off, before a cell", {"policy": "off", "when": When.before_cell, "cells": 9}, False, ""),
    ("off, but asked for", {"policy": "off", "when": When.asked}, True, ""),
    ("idle after a cell", {"cells": 1}, True, ""),
    ("idle, nothing ran", {}, False, ""),
    ("idle, costs little", {"cells": 1, "fork_s": 0.2, "cost_s": 9.0}, True, ""),
    (
        "idle, costs much, cells were short",
        {"cells": 1, "fork_s": 0.5, "risk_s": 1.0, "since_s": 2.0},
        False,
        "one costs 0.5 s, more than the cells were worth",
    ),
    ("idle, costs much, cells were long", {"cells": 1, "fork_s": 0.5, "risk_s": 6.0}, True, ""),
    ("idle after a comm handler", {"is_dirty": True, "since_s": 1.0, "fork_s": 0.01}, True, ""),
    ("idle, handlers in a row", {"is_dirty": True, "since_s": 0.03, "fork_s": 0.01}, False, ""),
    ("no pause, short cells", {"when": When.before_cell, "cells": 5, "risk_s": 0.01}, False, ""),
    (
        "no pause, work at risk",
        {"when": When.before_cell, "cells": 5, "risk_s": 0.3, "cost_s": 0.005},
        True,
        "",
    ),
    (
        "no pause, too little at risk whatever it costs",
        {"when": When.before_cell, "cells": 5, "risk_s": 0.2, "cost_s": 0.001},
        False,
        "",
    ),
    (
        "no pause, not worth the page faults",
        {"when": When.before_cell, "cells": 5, "risk_s": 0.06, "fork_s": 0.005, "cost_s": 0.1},
        False,
        "",
    ),
    (
        "no pause, a larger share allowed",
        {"when": When.before_cell, "cells": 5, "risk_s": 0.3, "cost_s": 0.1, "share": 0.5},
        True,
        "",
    ),
    ("before a cell, current", {"when": When.before_cell, "since_s": 9.0}, False, ""),
    (
        "before a cell, a task ran since",
        {"when": When.before_cell, "is_dirty": True, "since_s": 9.0},
        True,
        "",
    ),
    (
        "before a cell, a task ran a moment ago",
        {"when": When.before_cell, "is_dirty": True, "since_s": 0.005},
        False,
        "",
    ),
    ("always, before a cell", {"policy": "always", "when": When.before_cell}, True, ""),
    ("always, idle, nothing ran", {"policy": "always"}, False, ""),
    (
        "always, but the cell says no",
        {"policy": "always", "when": When.before_cell, "is_forbidden": True},
        False,
        "the cell has the tag no-snapshot",
    ),
    (
        "the cell before says no",
        {"cells": 1, "is_forbidden": True},
        False,
        "the cell has the tag no-snapshot",
    ),
    ("asked for by name", {"when": When.asked, "is_forbidden": True}, True, ""),
    ("memory is short", {"cells": 1, "is_short": True}, False, "memory is short"),
    (
        "asked for, memory is short",
        {"when": When.asked, "is_short": True},
        False,
        "memory is short",
    ),
]


@pytest.mark.parametrize(("seen", "moment", "take", "reason"), TABLE, ids=[r[0] for r in TABLE])
def test_the_policy_decides_by_its_table(
    seen: str, moment: dict[str, Any], take: bool, reason: str
) -> None:
    full: dict[str, Any] = {"policy": "auto", "when": When.idle, **moment}
    passes = reason.startswith(("memory is short", "one costs"))
    assert decide(Moment(**full)) == (take, reason, passes), seen


def test_in_a_run_without_pauses_snapshots_take_at_most_their_share() -> None:
    cost_s, cell_s, spent_s, risk_s, cells = 0.02, 0.005, 0.0, 0.0, 0
    for _ in range(2000):
        moment = Moment("auto", When.before_cell, cells=cells, risk_s=risk_s, cost_s=cost_s)
        if decide(moment).take:
            spent_s, risk_s, cells = spent_s + cost_s, 0.0, 0
        risk_s, cells = risk_s + cell_s, cells + 1
    assert 0.07 < spent_s / (2000 * cell_s) <= 0.1


def test_a_higher_cost_is_believed_at_once_and_a_lower_one_slowly() -> None:
    assert mix_cost(0.01, 0.5) == 0.5
    assert 0.3 < mix_cost(0.5, 0.01) < 0.5


def test_the_cost_is_the_fork_and_the_faults_after_it() -> None:
    assert whole_cost(0.01, 0, 5.0) == 0.01
    assert whole_cost(0.01, 1000, 0.0) == pytest.approx(0.011)
    assert whole_cost(0.01, 1000, 0.004) == pytest.approx(0.014)
    assert whole_cost(0.01, 1000, 5.0) == pytest.approx(0.02)


OWN = {"python"}


@pytest.mark.parametrize(
    ("comms", "libraries", "reasons"),
    [
        ([], [], []),
        (["python"], ["libopenblas64_.so"], []),
        (["python", "python"], ["libgomp-1.so", "libm.so"], []),
        (["python"], ["libm.so"], ["native threads that nobody knows"]),
        (["jemalloc_bg_thd"], [], []),
        (["polars-0", "polars-1"], ["libopenblas.so"], ["polars' thread pool"]),
        (["polars-0", "tokio-rt-worker"], [], ["polars' thread pool", "a pool of Rust's tokio"]),
        (["tf_Compute"], [], ["tensorflow's thread pool"]),
        (["python"], ["libopenblas.so", "_xla.so"], ["jax's threads"]),
        (["tf_XLAEigen", "llvm-worker-0"], ["libjax_common.so"], ["XLA's thread pool"]),
        (["ZMQbg/IO/0"], [], ["a ZMQ context"]),
        (["strange"], ["libgomp.so"], ["the native thread 'strange', which nobody knows"]),
    ],
)
def test_native_threads_are_known_or_make_a_donor(
    comms: list[str], libraries: list[str], reasons: list[str]
) -> None:
    assert donor_reasons(comms, OWN, libraries) == reasons
