"""Many calls at once that each cost more than they hold, in whatever processes that is decided."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.admission.ticket import STEP_TOKENS
from tests.stand.billing_stand import USAGE, piece
from tests.stand.configuration import configuration
from tests.stand.deployment import (
    PLANS,
    Client,
    Layout,
    connected_client,
    database_for,
    running_deployment,
)
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, FakeUpstream, Request, Script, sse

PIECE = "five " * 80
"""A hundred tokens, as the gateway counts."""
STEP_NANO = STEP_TOKENS * 15_000
CALLS = 200


def play(_: Request) -> Script:
    """Return an answer that ignores its limit."""
    usage = {**USAGE, "completion_tokens": 6_000, "total_tokens": 6_011}
    rest = sse(piece(None), {"choices": [], "usage": usage}, "[DONE]")
    pieces = [sse(piece(PIECE)) for _ in range(60)]
    return [SSE_HEAD, *pieces, rest, LAST_CHUNK]


async def ask_until_decided(
    client: Client, edge: int, secret: str, body: Mapping[str, Any]
) -> tuple[int, str]:
    """Return status and code of a call, which is repeated while a busy gateway sheds it."""
    while (answer := await client.ask(edge, secret, **body))[0] == 503:  # noqa: ASYNC110 - as told
        await asyncio.sleep(0.1)
    return answer


@pytest.mark.timeout(180)
@pytest.mark.parametrize("layout", PLANS)
async def test_calls_at_once_overspend_by_a_step_each_at_most(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """Of 200 streams over all edges, each far beyond its limit, on money for a few of them."""
    plan = PLANS[layout]
    async with FakeUpstream() as upstream, database_for(plan, request) as url:
        upstream.play(play)
        prices = {"completion_usd_per_mtok": 15}
        config = configuration(upstream.url, prices=prices)
        async with (
            running_deployment(tmp_path / "site", plan, config, url) as deployment,
            connected_client(deployment) as client,
        ):
            first = client.operators[0]
            _, secret = await first.create_key("acme")
            credit = CALLS // 2 * 20 * 15_000 + 3 * STEP_NANO
            await first.credit("acme", credit, "opening")
            body = {"model": "house/model", "max_tokens": 20, "stream": True,
                    "messages": [{"role": "user", "content": "Hello"}]}  # fmt: skip
            answers = await asyncio.gather(
                *(ask_until_decided(client, n, secret, body) for n in range(CALLS))
            )
            await client.all_ended()
            books = await first.account("acme")

            admitted = len(upstream.requests)
            assert 0 < admitted <= CALLS
            assert set(answers) <= {(200, ""), (402, "insufficient_quota")}
            assert books.balance_nano_usd >= -admitted * STEP_NANO
