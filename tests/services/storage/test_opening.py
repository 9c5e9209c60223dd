"""Which database is opened, and what is said where it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from services.storage.base import StateError
from services.storage.opening import open_database
from services.storage.sqlite import SqliteDatabase
from tests.stand.clock import FakeClock


async def test_without_a_url_it_is_a_file(tmp_path: Path) -> None:
    """Nothing is needed for one process."""
    database = await open_database(tmp_path, "", FakeClock())

    assert isinstance(database, SqliteDatabase)
    await database.close()


async def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the driver PostgreSQL cannot be had, and whoever asks learns what to install."""
    monkeypatch.delitem(sys.modules, "services.storage.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    with pytest.raises(StateError, match=r"pip install 'pomogator\[postgres\]'"):
        await open_database(tmp_path, "postgresql://127.0.0.1:1/db", FakeClock())
