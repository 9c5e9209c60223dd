"""A hundred callers at once, and money for ten of them, in whatever processes that is decided.

`POMOGATOR_REPETITIONS` says how often; the default is short enough for every day.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.stand.configuration import configuration
from tests.stand.deployment import PLANS, Layout, connected_client, database_for, running_deployment
from tests.stand.held_provider import ASKED, CHARGE_NANO_USD, HeldProvider
from tests.stand.upstream import FakeUpstream

REPETITIONS = int(os.environ.get("POMOGATOR_REPETITIONS", "5"))


@pytest.mark.timeout(120 + 10 * REPETITIONS)
@pytest.mark.parametrize("layout", PLANS)
async def test_a_balance_for_ten_admits_ten(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """Of 100 calls over all edges, whole and streamed, 10 are made, 90 are 402. Nothing is left."""
    plan = PLANS[layout]
    async with FakeUpstream() as upstream, database_for(plan, request) as url:
        upstream.play(HeldProvider())
        config = configuration(upstream.url, prices={"request_usd": 0.001})
        async with (
            running_deployment(tmp_path / "site", plan, config, url) as deployment,
            connected_client(deployment) as client,
        ):
            first, last = client.operators[0], client.operators[-1]
            for repetition in range(REPETITIONS):
                account = f"acme-{repetition}"
                _, secret = await first.create_key(account)
                await last.credit(account, 10 * CHARGE_NANO_USD, account)

                answers = await asyncio.gather(
                    *(client.ask(n, secret, **ASKED, stream=n % 8 < 4) for n in range(100))
                )

                assert Counter(answers) == {(200, ""): 10, (402, "insufficient_quota"): 90}
                await client.all_ended(repetition)
                books = await first.account(account)
                assert (books.balance_nano_usd, books.held_nano_usd) == (0, 0)
        assert len(upstream.requests) == 10 * REPETITIONS
