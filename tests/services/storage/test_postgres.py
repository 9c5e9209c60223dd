from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage import postgres, postgres_notices, postgres_pool
from services.storage.base import DatabaseOptions, StateError, Transaction
from services.storage.postgres import PostgresDatabase, numbered
from services.storage.schema import VERSION
from tests.services.storage.transactions import count, put


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    database = await PostgresDatabase.open(postgres_url)
    yield database
    await database.close()


async def test_notices_reach_other_processes(database: PostgresDatabase, postgres_url: str) -> None:
    """Listeners of one service get the notices of another."""
    other = await PostgresDatabase.open(postgres_url)
    heard: asyncio.Queue[str] = asyncio.Queue()
    other.subscribe(heard.put_nowait)

    await database.write(put, "revoked")

    assert await heard.get() == "revoked"
    await other.close()


async def test_lost_connections_are_replaced(
    database: PostgresDatabase, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the server drops all connections listeners get an empty notice, and calls succeed."""
    monkeypatch.setattr(postgres_notices, "HEARTBEAT_S", 0.5)
    heard: asyncio.Queue[str] = asyncio.Queue()
    database.subscribe(heard.put_nowait)
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await admin.close()

    assert await heard.get() == ""
    results = await asyncio.gather(
        *(database.write(put, f"n{n}") for n in range(20)), return_exceptions=True
    )
    assert all(isinstance(result, str | Failure) for result in results)
    assert await database.write(put, "after") == "after"
    assert database.healthy


async def test_connections_of_a_burst_are_closed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were unused for some time, when another transaction ends."""
    database = await PostgresDatabase.open(postgres_url, DatabaseOptions(notices=False))
    await asyncio.gather(*(database.write(put, f"n{n}") for n in range(8)))
    assert database._pool.size > 1

    await database.read(count)
    assert database._pool.size > 1
    monkeypatch.setattr(postgres_pool, "IDLE_MAX_S", 0.01)
    while database._pool.size > 1:
        await asyncio.sleep(0.01)
        assert await database.read(count) == 8
    await database.close()


async def test_a_busy_pool_is_no_lost_listen(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While its only connection is in use, the one that listens is kept, and hears notices."""
    database = await PostgresDatabase.open(postgres_url, DatabaseOptions(connections=2))
    other = await PostgresDatabase.open(postgres_url, DatabaseOptions(notices=False))
    heard: asyncio.Queue[str] = asyncio.Queue()
    database.subscribe(heard.put_nowait)
    listening = database._notices._connection
    async with database._pool.connection(5):
        monkeypatch.setattr(postgres, "COMMAND_TIMEOUT_S", 0.1)
        while "storage.failed" not in caplog.messages:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # Until a proof could not be sent.
        monkeypatch.undo()
        await other.write(put, "revoked")
        assert await heard.get() == "revoked"
    await database.write(put, "free")

    assert database._notices._connection is listening is not None
    (failed,) = caplog.records
    assert failed.__dict__["reason"] == (
        "all 1 connections of the pool are in use (state.connections)"
    )
    await asyncio.gather(database.close(), other.close())


async def test_a_locked_table_is_unavailable(
    database: PostgresDatabase, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that blocks fails after the timeout, and later ones succeed."""
    monkeypatch.setattr(postgres, "COMMAND_TIMEOUT_S", 0.2)
    other = await asyncpg.connect(postgres_url)
    lock = other.transaction()
    await lock.start()
    await other.execute("LOCK TABLE settings IN ACCESS EXCLUSIVE MODE")

    with pytest.raises(Failure) as refused:
        await database.write(put, "waits")

    assert refused.value.reason == ErrorReason.STORAGE_UNAVAILABLE
    assert not database.healthy
    await lock.rollback()
    await other.close()
    assert await database.write(put, "goes") == "goes"
    assert await database.read(count) == 1


def crossed(first: str, second: str) -> Transaction[None]:
    """Update two rows in an order that another transaction reverses."""
    yield "UPDATE settings SET value = value || 'x' WHERE name = ?", (first,)
    yield "SELECT pg_sleep(0.05)::TEXT", ()
    yield "UPDATE settings SET value = value || 'x' WHERE name = ?", (second,)


async def test_deadlocks_are_retried(database: PostgresDatabase) -> None:
    """Two transactions in a deadlock both take effect."""
    await database.write(put, "a")
    await database.write(put, "b")

    await asyncio.gather(database.write(crossed, "a", "b"), database.write(crossed, "b", "a"))

    assert await database.read(values) == {"valuexx"}


def values() -> Transaction[set[str]]:
    """Return the values of all rows."""
    rows = yield "SELECT value FROM settings", ()
    return {str(row[0]) for row in rows}


async def test_several_services_may_start_at_once(postgres_url: str) -> None:
    """One of several services creates the tables, and the others wait for it."""
    databases = await asyncio.gather(*(PostgresDatabase.open(postgres_url) for _ in range(4)))

    assert await databases[0].read(count) == 0
    await asyncio.gather(*(database.close() for database in databases))


async def test_a_newer_schema_is_refused(database: PostgresDatabase, postgres_url: str) -> None:
    """The message says what to do about a state of a newer program."""
    await database.write(statement, "UPDATE schema_version SET version = version + 1")

    with pytest.raises(StateError, match=f"schema version {VERSION + 1}, this program knows up to"):
        await PostgresDatabase.open(postgres_url)


async def test_missing_tables_are_named(database: PostgresDatabase, postgres_url: str) -> None:
    """A database that lost a table is refused."""
    await database.write(statement, "DROP TABLE budgets")

    with pytest.raises(StateError, match=r"tables are missing \(budgets\)"):
        await PostgresDatabase.open(postgres_url)


def statement(sql: str) -> Transaction[None]:
    """Run a statement."""
    yield sql, ()


async def test_unreachable_server_is_one_line_without_the_password() -> None:
    """The message names no URL, which may hold a password."""
    with pytest.raises(StateError) as refused:
        await PostgresDatabase.open("postgresql://user:s3cret@127.0.0.1:1/x")

    assert "s3cret" not in str(refused.value)
    assert str(refused.value).startswith("state.database_url: ")


def test_placeholders_are_numbered() -> None:
    """`?` becomes `$1`, `$2`, …."""
    assert numbered("UPDATE t SET a = ?, b = ? WHERE c = ?") == (
        "UPDATE t SET a = $1, b = $2 WHERE c = $3"
    )
