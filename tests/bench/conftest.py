"""Benches run when they are asked for by ``-m bench``, never with the suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the benches of this folder unless the mark was asked for."""
    if "bench" in str(config.getoption("markexpr")):
        return
    here = Path(__file__).parent
    chosen = [
        item for item in items if here in item.path.parents and item.get_closest_marker("bench")
    ]
    if chosen:
        config.hook.pytest_deselected(items=chosen)
        items[:] = [item for item in items if item not in chosen]
