"""Several service processes on one PostgreSQL, each with an edge of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from pomogator.accounts.v1 import key_service_pb2 as keys

from tests.stand.configuration import configuration
from tests.stand.deployment import Client, Plan, connected_client, running_deployment
from tests.stand.held_provider import ASKED, CHARGE_NANO_USD, PATH, HeldProvider
from tests.stand.operators import Operators
from tests.stand.polling import until_status
from tests.stand.upstream import FakeUpstream
from tests.stand.valkey import running_valkey


@dataclass(frozen=True, slots=True)
class Fleet:
    """A deployment of several services and their provider."""

    client: Client
    """A client of the deployment."""
    upstream: FakeUpstream
    """The provider's server."""
    provider: HeldProvider
    """The provider's answers."""

    @property
    def operators(self) -> Sequence[Operators]:
        """The operators' methods of each service."""
        return self.client.operators

    def url(self, number: int) -> str:
        """The URL of a service's edge."""
        return self.client.deployment.urls[number]

    async def ask(self, number: int, secret: str) -> tuple[int, str]:
        """The status of a call to a service's edge, and the error's code."""
        return await self.client.ask(number, secret, **ASKED)


@asynccontextmanager
async def fleet(
    directory: Path, services: int, database_url: str, redis_url: str = ""
) -> AsyncIterator[Fleet]:
    """A running fleet over one database."""
    provider = HeldProvider()
    plan = Plan(services=services, shared=True)
    async with FakeUpstream() as upstream:
        upstream.play(provider)
        config = configuration(upstream.url, prices={"request_usd": 0.001})
        async with (
            running_deployment(directory, plan, config, database_url, redis_url) as deployment,
            connected_client(deployment) as client,
        ):
            yield Fleet(client, upstream, provider)


async def test_a_key_revoked_in_one_process_ends_streams_in_another(
    tmp_path: Path, postgres_url: str
) -> None:
    """The other process ends running calls, charges them, and admits no more."""
    async with fleet(tmp_path, 2, postgres_url) as gateways:
        here, elsewhere = gateways.operators
        key_id, secret = await here.create_key("acme")
        await here.credit("acme", 10 * CHARGE_NANO_USD, "first")
        gateways.provider.goes_on.clear()
        running = asyncio.create_task(gateways.ask(0, secret))
        request = await gateways.upstream.request()
        body = {**ASKED, "stream": True}
        headers = {"Authorization": f"Bearer {secret}"}
        async with gateways.client.http.post(
            gateways.url(0) + PATH, json=body, headers=headers
        ) as answer:
            await answer.content.readuntil(b'"Good"')

            await elsewhere.revoke_key(key_id)

            rest = await answer.content.read()
        assert b'"key_revoked"' in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        assert await running == (401, "key_revoked")
        await request.left.wait()
        await (await gateways.upstream.request(1)).left.wait()
        for member in (0, 1):
            assert await gateways.ask(member, secret) == (401, "key_revoked")
        await gateways.client.all_ended()
        books = await here.account("acme")
        assert books.balance_nano_usd == 8 * CHARGE_NANO_USD


async def test_limits_are_shared_while_valkey_answers(tmp_path: Path, postgres_url: str) -> None:
    """A key's requests a minute are counted once for all; with Valkey frozen, calls go on."""
    with running_valkey() as valkey:
        async with fleet(tmp_path, 2, postgres_url, valkey.url) as gateways:
            ops = gateways.operators[0]
            await ops.create_key("acme")
            await ops.credit("acme", 1000 * CHARGE_NANO_USD, "first")
            _, secret = await ops.create_key("acme", keys.KeyScope(requests_per_minute=10))
            _, boundless = await ops.create_key("acme", keys.KeyScope(requests_per_minute=10_000))

            answers = await asyncio.gather(*(gateways.ask(n % 2, secret) for n in range(40)))
            assert Counter(answers) == {(200, ""): 10, (429, "rate_limit_exceeded"): 30}

            with valkey.frozen():
                frozen = await asyncio.gather(*(gateways.ask(n % 2, boundless) for n in range(40)))
            assert Counter(frozen) == {(200, ""): 40}
            await gateways.client.all_ended()


async def test_without_its_database_a_process_is_alive_and_not_ready(
    tmp_path: Path, postgres_url: str
) -> None:
    """All calls are 503, never 401, until the database is back; then they go on."""
    async with fleet(tmp_path, 1, postgres_url) as gateways:
        ops = gateways.operators[0]
        _, known = await ops.create_key("acme")
        _, unknown = await ops.create_key("acme")
        await ops.credit("acme", 10 * CHARGE_NANO_USD, "first")
        assert await gateways.ask(0, known) == (200, "")
        http, ready = gateways.client.http, f"{gateways.url(0)}/readyz"
        schema = postgres_url.rpartition("=")[2]
        admin = await asyncpg.connect(postgres_url)

        await admin.execute(f"ALTER SCHEMA {schema} RENAME TO {schema}_gone")
        await until_status(http, ready, 503)

        await until_status(http, f"{gateways.url(0)}/healthz", 200)
        assert await gateways.ask(0, known) == (503, "storage_unavailable")
        assert await gateways.ask(0, unknown) == (503, "auth_unavailable")
        await admin.execute(f"ALTER SCHEMA {schema}_gone RENAME TO {schema}")
        await admin.close()
        await until_status(http, ready, 200)
        for secret in (known, unknown):
            assert await gateways.ask(0, secret) == (200, "")
        await gateways.client.all_ended()
        books = await ops.account("acme")
        assert books.balance_nano_usd == 7 * CHARGE_NANO_USD
