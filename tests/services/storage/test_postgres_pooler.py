"""PostgreSQL behind a real PgBouncer, in each of its modes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from services.storage.base import DatabaseOptions, StateError
from services.storage.postgres import PostgresDatabase
from tests.services.storage.transactions import count, put
from tests.stand.pgbouncer import PGBOUNCER, PoolMode, own_database, running_pgbouncer

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

MODES = ("session", "transaction")


@pytest.fixture
async def direct_url(postgres_server: str) -> AsyncIterator[str]:
    """URL of a database past the pooler."""
    async with own_database(postgres_server) as url:
        yield url


@pytest.mark.parametrize("mode", MODES)
async def test_transactions_pass_through(direct_url: str, mode: PoolMode) -> None:
    """200 transactions are all committed.

    In session mode the pooler needs a connection for each of the gateway's, in transaction mode
    fewer are enough.
    """
    options = DatabaseOptions(connections=3 if mode == "session" else 16)
    async with running_pgbouncer(direct_url, mode, size=12) as url:
        databases = await asyncio.gather(*(PostgresDatabase.open(url, options) for _ in range(3)))

        await asyncio.gather(*(databases[n % 3].write(put, f"n{n}") for n in range(200)))

        assert await databases[0].read(count) == 200
        assert all(database.healthy for database in databases)
        await asyncio.gather(*(database.close() for database in databases))


@pytest.mark.parametrize(("mode", "way"), [("session", "heard"), ("transaction", "polled")])
async def test_notices_arrive_or_are_polled(
    direct_url: str, mode: PoolMode, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the pooler loses LISTEN, an empty notice follows every notice within seconds."""
    async with running_pgbouncer(direct_url, mode) as url:
        other = await PostgresDatabase.open(url, DatabaseOptions(connections=3))
        database = await PostgresDatabase.open(url, DatabaseOptions(connections=3, notices=False))
        heard: asyncio.Queue[str] = asyncio.Queue()
        other.subscribe(heard.put_nowait)

        await database.write(put, "revoked")

        async with asyncio.timeout(5):
            assert await heard.get() == ("revoked" if way == "heard" else "")
        polled = [record for record in caplog.records if record.message == "notices.polled"]
        assert len(polled) == (way == "polled")
        await database.close()
        await other.close()


async def test_a_direct_url_is_listened_to(
    direct_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With `database_direct_url` notices arrive at once, though the pooler has transaction mode."""
    async with running_pgbouncer(direct_url, "transaction") as url:
        options = DatabaseOptions(direct_url=direct_url)
        database = await PostgresDatabase.open(url, options)
        heard: asyncio.Queue[str] = asyncio.Queue()
        database.subscribe(heard.put_nowait)
        other = await PostgresDatabase.open(url, DatabaseOptions(notices=False))

        await other.write(put, "revoked")

        async with asyncio.timeout(5):
            assert await heard.get() == "revoked"
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        await database.close()
        await other.close()


async def test_a_pooler_that_appears_later_costs_no_call(direct_url: str) -> None:
    """Statements that were named are unnamed from the first error on, and it reaches no caller."""
    async with (
        running_pgbouncer(direct_url, "transaction", size=4) as url,
        AsyncExitStack() as stack,
    ):
        options = DatabaseOptions(prepared_statements="auto", notices=False)
        database = await PostgresDatabase.open(url, options)
        stack.push_async_callback(database.close)
        # As if the address had led to the server until now.
        database._connector.named_statements = True
        database._pool.expire()
        await database.write(put, "first")

        for number in range(3):
            # The transaction of another client takes the server's connection that has statements.
            other = await asyncpg.connect(url, statement_cache_size=0)
            stack.push_async_callback(other.close)
            await other.execute("BEGIN")
            await database.write(put, f"beside {number}")

        assert not database._connector.named_statements
        assert await database.read(count) == 4


async def test_statement_mode_is_refused(direct_url: str) -> None:
    """It has no transactions."""
    async with running_pgbouncer(direct_url, "statement") as url:
        with pytest.raises(StateError, match="the server closed the connection"):
            await PostgresDatabase.open(url)


async def test_a_setting_that_the_pooler_does_not_pass_on_is_named(direct_url: str) -> None:
    """PgBouncer refuses a `search_path` in the URL."""
    async with running_pgbouncer(direct_url, "transaction") as url:
        with pytest.raises(StateError, match="unsupported startup parameter: search_path"):
            await PostgresDatabase.open(f"{url}?search_path=public")
