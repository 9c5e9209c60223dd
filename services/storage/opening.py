"""Opens the database that the configuration names."""

from __future__ import annotations

from pathlib import Path

from services.clock import Clock
from services.storage.base import Database, StateError
from services.storage.sqlite import SqliteDatabase

try:
    from services.storage.postgres import PostgresDatabase
except ModuleNotFoundError:  # Its driver comes with the extra `postgres`.
    PostgresDatabase = None  # type: ignore[assignment, misc]


async def open_database(state: Path, database_url: str, clock: Clock) -> Database:
    """PostgreSQL at `database_url`, or without one SQLite in `state`. StateError if it cannot."""
    if not database_url:
        return await SqliteDatabase.open(state, clock)
    if PostgresDatabase is None:
        raise StateError("state.database_url needs the extra: pip install 'pomogator[postgres]'")
    try:
        return await PostgresDatabase.open(database_url)
    except ValueError:  # Its text would show the URL, and that may hold a password.
        raise StateError("state.database_url: is no URL of PostgreSQL's") from None
