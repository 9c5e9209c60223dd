"""The databases that everything with a memory is tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.storage.base import Database
from services.storage.sqlite import SqliteDatabase
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
async def database(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Database]:
    """An empty database of each kind."""
    database = await SqliteDatabase.open(tmp_path / "state", clock)
    yield database
    await database.close()
