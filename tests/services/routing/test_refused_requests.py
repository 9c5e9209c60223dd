"""Requests that one caller has refused, and the channels of all others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from services.providers.base import ModelRoute
from tests.services.routing.targets import target
from tests.services.routing.test_failover import FINE, setup
from tests.stand.upstream import Script, answer, json_answer

REFUSALS: dict[str, Script] = {
    "an answer that the operator's credit does not cover": [
        json_answer({"error": {"message": "You can only afford 3 tokens."}}, 402)
    ],
    "a prompt that a firewall knows": [answer(b"<html>Blocked</html>", 403)],
}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Contexts that are closed after the test."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refused_request_sends_no_later_one_to_another_channel(
    stack: AsyncExitStack, refusal: str
) -> None:
    """The next channel answers the refused request, and the first one all that follow."""
    served = await setup(stack, REFUSALS[refusal], FINE)
    served.upstreams[0].play(FINE)
    targets = [
        target(f"channel-{number}", url=upstream.url, priority=number)
        for number, upstream in enumerate(served.upstreams)
    ]
    route = ModelRoute(model="public/m", base_model="public/m", targets=targets)
    answering = [(await served.ask(route))[0].target.channel.name for _ in range(3)]

    assert answering == ["channel-1", "channel-0", "channel-0"]
