"""Replicas over a PostgreSQL whose primary is lost, and whose standby is promoted."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import asyncpg
import pytest

from tests.stand.configuration import configuration
from tests.stand.databases import running_postgres
from tests.stand.deployment import Client, Plan, connected_client, running_deployment
from tests.stand.held_provider import ASKED, CHARGE_NANO_USD, HeldProvider
from tests.stand.replication import (
    kill_server,
    replicate_synchronously,
    running_standby,
    socket_folder,
)
from tests.stand.upstream import FakeUpstream

CALLERS = 8
CALLS = 60
"""Served calls before the failover, and after it."""
CREDIT = 100_000 * CHARGE_NANO_USD


class Load:
    """Calls at both replicas, one after another by each caller."""

    def __init__(self, client: Client, secret: str) -> None:
        self._client = client
        self._secret = secret
        self.statuses: Counter[int] = Counter()
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Call for ever."""
        await asyncio.gather(*(self._call(number) for number in range(CALLERS)))

    async def served(self, more: int) -> None:
        """Wait until so many more calls are served."""
        wanted = self.statuses[200] + more
        async with self._changed:
            await self._changed.wait_for(lambda: self.statuses[200] >= wanted)

    async def _call(self, number: int) -> None:
        while True:
            status, _ = await self._client.ask(number, self._secret, **ASKED)
            async with self._changed:
                self.statuses[status] += 1
                self._changed.notify_all()
            if status != 200:
                await asyncio.sleep(0.1)  # As its Retry-After asks, or sooner.


@pytest.mark.nightly
async def test_calls_go_on_at_a_promoted_standby(tmp_path: Path) -> None:
    """Calls of the meantime are 503; then all are served, and the books are right.

    The standby has each charge before its transaction ends. Holds are replicated without a wait. So
    a hold may be lost with its primary, and its call is not charged: one of each caller at most.
    """
    with running_postgres() as primary, running_standby(primary) as standby:
        await replicate_synchronously(primary)
        folders = f"{socket_folder(primary)},{socket_folder(standby)}"
        url = f"postgresql://postgres@/postgres?host={folders}&target_session_attrs=read-write"
        async with FakeUpstream() as upstream:
            upstream.play(HeldProvider())
            config = configuration(upstream.url, prices={"request_usd": 0.001})
            plan = Plan(services=2, shared=True)
            async with (
                running_deployment(tmp_path / "replicas", plan, config, url) as deployment,
                connected_client(deployment) as client,
            ):
                _, secret = await client.operators[0].create_key("payer")
                await client.operators[0].credit("payer", CREDIT, "payer")
                load = Load(client, secret)
                calls = asyncio.create_task(load.run())
                await load.served(CALLS)
                assert load.statuses.keys() == {200}

                kill_server(primary)
                promoter = await asyncpg.connect(standby)
                assert await promoter.fetchval("SELECT pg_promote(true, 60)")
                await promoter.close()
                await load.served(CALLS)

                calls.cancel()
                await asyncio.gather(calls, return_exceptions=True)
                assert load.statuses.keys() <= {200, 503}
                assert Counter(
                    [await client.ask(number, secret, **ASKED) for number in range(20)]
                ) == {(200, ""): 20}
                await client.all_ended()
                account = await client.operators[1].account("payer")
                paid = (CREDIT - account.balance_nano_usd) // CHARGE_NANO_USD
                assert load.statuses[200] + 20 - CALLERS <= paid <= len(upstream.requests)
