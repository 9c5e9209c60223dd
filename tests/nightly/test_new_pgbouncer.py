"""A PgBouncer that keeps prepared statements, in both of its modes, with and without names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from services.storage.base import DatabaseOptions
from services.storage.postgres import PostgresDatabase
from tests.services.storage.transactions import count, put
from tests.stand.pgbouncer import NEW_PGBOUNCER, PoolMode, own_database, running_pgbouncer

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(NEW_PGBOUNCER is None, reason="POMOGATOR_NEW_PGBOUNCER names none"),
]
modes = pytest.mark.parametrize("mode", ["session", "transaction"])


@pytest.fixture
async def direct_url(postgres_server: str) -> AsyncIterator[str]:
    """URL of a database past the pooler."""
    async with own_database(postgres_server) as url:
        yield url


@modes
@pytest.mark.parametrize("statements", ["auto", "named", "unnamed"])
async def test_transactions_pass_through(
    direct_url: str, mode: PoolMode, statements: Literal["auto", "named", "unnamed"]
) -> None:
    """600 transactions of three processes are committed over twelve connections to the server."""
    options = DatabaseOptions(
        connections=3 if mode == "session" else 16, prepared_statements=statements
    )
    async with running_pgbouncer(direct_url, mode, size=12, program=NEW_PGBOUNCER) as url:
        databases = await asyncio.gather(*(PostgresDatabase.open(url, options) for _ in range(3)))

        await asyncio.gather(*(databases[n % 3].write(put, f"n{n}") for n in range(600)))

        assert await databases[0].read(count) == 600
        assert all(database.healthy for database in databases)
        for database in databases:
            assert not database._connector.direct
            assert database._connector.named_statements is (statements == "named")
        await asyncio.gather(*(database.close() for database in databases))


@modes
async def test_notices_arrive_or_are_polled(
    direct_url: str, mode: PoolMode, caplog: pytest.LogCaptureFixture
) -> None:
    """The pooler loses LISTEN in transaction mode as older ones do, and the gateway finds out."""
    few = DatabaseOptions(connections=3)
    async with running_pgbouncer(direct_url, mode, program=NEW_PGBOUNCER) as url:
        other, database = [await PostgresDatabase.open(url, few) for _ in range(2)]
        heard: asyncio.Queue[str] = asyncio.Queue()
        other.subscribe(heard.put_nowait)

        await database.write(put, "revoked")

        async with asyncio.timeout(10):
            assert await heard.get() == ("revoked" if mode == "session" else "")
        assert ("notices.polled" in caplog.messages) is (mode == "transaction")
        await asyncio.gather(database.close(), other.close())
