"""Fixtures for tests of the service: a clock, and an empty database of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.base import Database
from services.storage.opening import open_database
from tests.stand.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
async def database(
    each_database_url: str, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[Database]:
    """An empty database of each kind."""
    database = await open_database(tmp_path / "state", each_database_url, clock)
    yield database
    await database.close()
