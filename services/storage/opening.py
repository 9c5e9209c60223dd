"""Opens the database that the configuration names."""

from __future__ import annotations

from pathlib import Path

from services.clock import Clock
from services.storage.base import Database, StateError
from services.storage.sqlite import SqliteDatabase


async def open_database(state: Path, database_url: str, clock: Clock) -> Database:
    """PostgreSQL at `database_url`, or without one SQLite in `state`. StateError if it cannot."""
    if database_url:
        raise StateError("state.database_url: this build has no PostgreSQL")
    return await SqliteDatabase.open(state, clock)
