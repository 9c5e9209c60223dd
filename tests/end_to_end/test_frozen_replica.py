"""A replica that stands still until another one has recovered its holds, and then goes on."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.end_to_end.test_fleet import fleet
from tests.stand.held_provider import ASKED, CHARGE_NANO_USD, PATH


@pytest.mark.nightly
async def test_calls_of_a_frozen_replica_are_charged_once_and_whole(
    tmp_path: Path, postgres_url: str
) -> None:
    """A stream is charged its rest, and a whole answer, which had no checkpoint, all."""
    async with fleet(tmp_path, 2, postgres_url) as gateways:
        ops = gateways.operators[1]
        _, secret = await ops.create_key("acme")
        await ops.credit("acme", 10 * CHARGE_NANO_USD, "first")
        frozen, other = gateways.client.deployment.services.values()
        gateways.provider.goes_on.clear()
        headers = {"Authorization": f"Bearer {secret}"}
        url = gateways.url(0) + PATH
        async with gateways.client.http.post(
            url, json={**ASKED, "stream": True}, headers=headers
        ) as stream:
            await stream.content.readuntil(b'"Good"')
            whole = asyncio.create_task(gateways.ask(0, secret))
            await gateways.upstream.request(1)
            frozen.send_signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(100):
                    await other.event("holds.recovered")
                assert (await ops.account("acme")).held_nano_usd == 0
            finally:
                frozen.send_signal(signal.SIGCONT)
            gateways.provider.goes_on.set()
            assert (await stream.content.read()).endswith(b"data: [DONE]\n\n")
        assert await whole == (200, "")
        await frozen.event("holds.charged_late")

        assert (await ops.account("acme")).balance_nano_usd == 8 * CHARGE_NANO_USD
        assert not (await ops.verify()).findings
        assert await gateways.ask(0, secret) == (200, "")
