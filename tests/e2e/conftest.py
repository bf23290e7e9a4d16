"""Fixtures that only the end-to-end tests need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.environments import build_wheel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build our wheel once."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))
