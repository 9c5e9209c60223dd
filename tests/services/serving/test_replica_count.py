"""Number of the services that share a database."""

from __future__ import annotations

import asyncio

import pytest

from services.serving import replica_count
from services.serving.replica_count import ReplicaCount
from services.storage.leases import end_leases, renew_lease
from services.storage.postgres import PostgresDatabase


async def test_live_leases_are_counted(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired leases do not count, and there is at least one service: this one."""
    monkeypatch.setattr(replica_count, "INTERVAL_S", 0.01)
    database = await PostgresDatabase.open(postgres_url)
    replicas = ReplicaCount(database)
    watching = asyncio.create_task(replicas.watch())
    assert replicas.number == 1
    for owner, lease_ms in (("a", 15_000), ("b", 15_000), ("dead", -1)):
        await database.write(renew_lease, owner, lease_ms)
    await becomes(replicas, 2)
    await database.write(end_leases)
    await becomes(replicas, 1)
    watching.cancel()
    await database.close()


async def becomes(replicas: ReplicaCount, number: int) -> None:
    """Return once this many are counted."""
    async with asyncio.timeout(10):
        while replicas.number != number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # A count announces nothing.
