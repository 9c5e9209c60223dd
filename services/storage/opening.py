"""Opens the database that the configuration names.

PostgreSQL's driver is loaded for those who have named one: it takes 24 ms of every start.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from services.clock import Clock
from services.storage.base import Database, StateError
from services.storage.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from services.storage.postgres import PostgresDatabase


async def open_database(state: Path, database_url: str, clock: Clock) -> Database:
    """PostgreSQL at `database_url`, or without one SQLite in `state`. StateError if it cannot."""
    if not database_url:
        return await SqliteDatabase.open(state, clock)
    try:
        return await _postgres().open(database_url)
    except ValueError:  # Its text would show the URL, and that may hold a password.
        raise StateError("state.database_url: is no URL of PostgreSQL's") from None


def _postgres() -> type[PostgresDatabase]:
    try:
        found: type[PostgresDatabase] = import_module("services.storage.postgres").PostgresDatabase
    except ModuleNotFoundError:  # Its driver comes with the extra `postgres`.
        message = "state.database_url needs the extra: pip install 'pomogator[postgres]'"
        raise StateError(message) from None
    return found
