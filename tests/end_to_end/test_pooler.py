"""Two replicas behind a real PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.stand.configuration import configuration
from tests.stand.deployment import Client, Plan, connected_client, running_deployment
from tests.stand.held_provider import ASKED, CHARGE_NANO_USD, HeldProvider
from tests.stand.pgbouncer import NEW_PGBOUNCER, PGBOUNCER, own_database, running_pgbouncer
from tests.stand.polling import until
from tests.stand.upstream import FakeUpstream

CALLS = 1000
CALLERS = 40
CREDIT = 10_000 * CHARGE_NANO_USD


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(PGBOUNCER, id="stable"),
        pytest.param(NEW_PGBOUNCER, id="new", marks=pytest.mark.nightly),
    ],
)
async def test_two_replicas_behind_a_pooler(
    tmp_path: Path, postgres_server: str, program: str | None
) -> None:
    """1,000 calls are served, a key revoked at one is refused at the other, the books are right."""
    if program is None:
        pytest.skip("pgbouncer is not installed")
    async with (
        own_database(postgres_server) as direct,
        running_pgbouncer(direct, "transaction", size=10, program=program) as url,
        FakeUpstream() as upstream,
    ):
        upstream.play(HeldProvider())
        config = configuration(upstream.url, prices={"request_usd": 0.001})
        plan = Plan(services=2, shared=True)
        async with (
            running_deployment(tmp_path / "replicas", plan, config, url) as deployment,
            connected_client(deployment) as client,
        ):
            key_id, secret = await client.operators[0].create_key("payer")
            await client.operators[0].credit("payer", CREDIT, "payer")

            statuses = await served(client, secret)

            assert statuses == {200: CALLS}
            await client.operators[0].revoke_key(key_id)

            async def is_refused() -> bool:
                return await client.ask(1, secret, **ASKED) == (401, "key_revoked")

            await until(is_refused, timeout_s=5)
            await client.all_ended()
            account = await client.operators[1].account("payer")
            paid = (CREDIT - account.balance_nano_usd) // CHARGE_NANO_USD
            assert account.held_nano_usd == 0
            assert CALLS <= paid == len(upstream.requests)


async def served(client: Client, secret: str) -> Counter[int]:
    """Make the calls, in turn at both replicas, and return the number of each status."""
    statuses: Counter[int] = Counter()

    async def call(first: int) -> None:
        for number in range(first, CALLS, CALLERS):
            status, _ = await client.ask(number, secret, **ASKED)
            statuses[status] += 1

    await asyncio.gather(*(call(first) for first in range(CALLERS)))
    return statuses
