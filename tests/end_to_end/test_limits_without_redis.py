"""Two replicas whose Redis dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.stand.configuration import configuration
from tests.stand.databases import empty_postgres
from tests.stand.deployment import Client, Plan, connected_client, running_deployment
from tests.stand.held_provider import ASKED, HeldProvider
from tests.stand.upstream import FakeUpstream
from tests.stand.valkey import running_valkey

LIMIT = """
[[limits]]
key = "*"
rpm = 20
"""


async def test_each_replica_grants_its_share(tmp_path: Path, postgres_server: str) -> None:
    """Without Redis each of two replicas grants half of a limit: they count their leases."""
    async with (
        empty_postgres(postgres_server) as database,
        FakeUpstream() as upstream,
    ):
        upstream.play(HeldProvider())
        with running_valkey() as valkey:
            config = configuration(upstream.url) + LIMIT
            plan = Plan(services=2, shared=True)
            async with (
                running_deployment(
                    tmp_path / "replicas", plan, config, database, valkey.url
                ) as both,
                connected_client(both) as client,
            ):
                valkey.kill()
                async with asyncio.timeout(30):
                    # Each replica counts every five seconds.
                    while [await granted(client, edge) for edge in range(2)] != [10, 10]:  # noqa: ASYNC110
                        await asyncio.sleep(0.5)


async def granted(client: Client, edge: int) -> int:
    """Return how many of 20 requests with a new key a replica serves."""
    _, secret = await client.operators[edge].create_key("default")
    answers = [await client.ask(edge, secret, **ASKED) for _ in range(20)]
    return sum(status == 200 for status, _ in answers)
