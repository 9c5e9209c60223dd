"""PostgreSQL servers that are demoted, full, or strict with their roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from services.storage.base import DatabaseOptions, StateError, Transaction
from services.storage.postgres import PostgresDatabase
from tests.services.storage.transactions import count, put
from tests.stand.databases import running_postgres
from tests.stand.pgbouncer import own_database

FEW = DatabaseOptions(connections=4)


@pytest.fixture(scope="module")
def strict_server() -> Iterator[str]:
    """URL of a server that tests may configure."""
    with running_postgres() as url:
        yield url


@pytest.fixture
async def admin(strict_server: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Connection of the server's administrator."""
    connection = await asyncpg.connect(strict_server)
    yield connection
    await connection.close()


@pytest.fixture
async def role(admin: asyncpg.Connection[asyncpg.Record]) -> str:
    """Role without any privilege of its own."""
    name = f"role_{uuid4().hex[:8]}"
    await admin.execute(f"CREATE ROLE {name} LOGIN")
    return name


def folder(url: str) -> str:
    """Return the folder of the server's socket."""
    (host,) = parse_qs(urlsplit(url).query)["host"]
    return host


async def test_a_demoted_primary_is_left_at_once(
    strict_server: str, postgres_server: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    """After a failover without a disconnect no write fails, and none goes to the old server."""
    async with own_database(strict_server) as old, own_database(postgres_server) as new:
        name = f"failover_{uuid4().hex[:8]}"
        for server, url in ((strict_server, old), (postgres_server, new)):
            owner = await asyncpg.connect(server)
            await owner.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} RENAME TO {name}")
            await owner.close()
        hosts = f"{folder(strict_server)},{folder(postgres_server)}"
        standby = await asyncpg.connect(postgres_server, database=name)
        await standby.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await standby.close()
        # Its only writable host is the first one.
        database = await PostgresDatabase.open(f"postgresql://postgres@/{name}?host={hosts}", FEW)
        await asyncio.gather(*(database.write(put, f"before-{n}") for n in range(8)))

        standby = await asyncpg.connect(postgres_server)
        await standby.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await standby.close()
        promoted = await PostgresDatabase.open(
            f"postgresql://postgres@/{name}?host={folder(postgres_server)}", FEW
        )
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        try:
            await read_only(f"postgresql://postgres@/{name}?host={folder(strict_server)}")
            for number in range(20):
                await database.write(put, f"after-{number}")
            assert await promoted.read(count) == 20
            assert await database.read(count) == 20
        finally:
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await admin.execute("SELECT pg_reload_conf()")
            await database.close()
            await promoted.close()
            for server, url in ((strict_server, old), (postgres_server, new)):
                owner = await asyncpg.connect(server)
                await owner.execute("SET default_transaction_read_only = off")
                await owner.execute(f"ALTER DATABASE {name} RENAME TO {urlsplit(url).path[1:]}")
                await owner.close()


async def read_only(url: str) -> None:
    """Return once new sessions of the server are read-only."""
    connection = await asyncpg.connect(url)
    setting = "SHOW default_transaction_read_only"
    while await connection.fetchval(setting) != "on":  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # A reload announces nothing.
    await connection.close()


async def test_a_server_that_restarts_its_sessions_costs_no_call(strict_server: str) -> None:
    """Terminated sessions, idle or not yet committed, are replaced without an error."""
    async with own_database(strict_server) as url:
        database = await PostgresDatabase.open(url, FEW)
        killer = await asyncpg.connect(url)
        for number in range(10):
            writes = [
                asyncio.create_task(database.write(slow_put, f"{number}-{n}")) for n in range(3)
            ]
            await asyncio.sleep(0.05)
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await asyncio.gather(*writes)
        assert await database.read(count) == 30
        await killer.close()
        await database.close()


def slow_put(name: str) -> Transaction[None]:
    """Insert a row after a tenth of a second."""
    yield "SELECT pg_sleep(0.1)::TEXT", ()
    yield "INSERT INTO settings (name, value) VALUES (?, ?)", (name, "value")


async def test_the_pool_waits_where_the_server_is_full(
    strict_server: str, admin: asyncpg.Connection[asyncpg.Record], role: str
) -> None:
    """100 writes at once over the connections that the role may have: all are committed."""
    async with own_database(strict_server) as url:
        await admin.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} OWNER TO {role}")
        await admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT 3")
        database = await PostgresDatabase.open(url.replace("postgres:@", f"{role}@"))

        await asyncio.gather(*(database.write(put, f"n{n}") for n in range(100)))

        assert await database.read(count) == 100
        assert database._pool.size == 2  # The third one listens.
        await database.close()


async def test_a_start_says_how_many_connections_are_missing(
    strict_server: str,
    admin: asyncpg.Connection[asyncpg.Record],
    role: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Fewer slots than may be needed are a warning with the numbers, and none is an error."""
    async with own_database(strict_server) as url:
        await admin.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} OWNER TO {role}")
        await admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT 3")
        ours = url.replace("postgres:@", f"{role}@")
        database = await PostgresDatabase.open(ours)
        (short,) = [r for r in caplog.records if r.message == "database_slots.short"]
        assert (short.__dict__["connections"], short.__dict__["free"]) == (16, 3)

        other = await asyncpg.connect(ours)  # Beside one of the pool, and one that listens.
        with pytest.raises(StateError, match=r"too many .*needs 2 to 16 \(state\.connections\)"):
            await PostgresDatabase.open(ours)

        await asyncio.gather(database.close(), other.close())


async def test_a_role_without_create_is_told_the_grant(
    strict_server: str, admin: asyncpg.Connection[asyncpg.Record], role: str
) -> None:
    """The message names role, schema and grant; after a migration by the owner none is needed."""
    async with own_database(strict_server) as url:
        ours = url.replace("postgres:@", f"{role}@")
        grant = f"GRANT CREATE ON SCHEMA public TO {role}"
        with pytest.raises(StateError, match=grant):
            await PostgresDatabase.open(ours, FEW)
        await (await PostgresDatabase.open(url, FEW)).close()
        with pytest.raises(StateError, match=r"GRANT SELECT, INSERT, UPDATE, DELETE ON .*holds"):
            await PostgresDatabase.open(ours, FEW)
        owner = await asyncpg.connect(url)
        tables = "ALL TABLES IN SCHEMA public"
        await owner.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}")

        database = await PostgresDatabase.open(ours, FEW)

        await database.write(put, "works")
        await database.close()
        await owner.execute(f"DROP OWNED BY {role}")
        await owner.close()
