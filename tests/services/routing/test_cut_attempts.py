"""Attempts that a caller's deadline cuts for the sake of other channels: each is held for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import msgspec
import pytest

from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.routing.attempts import CallAttempts, cut_attempts_max
from services.routing.completion_form import CompletionForm
from tests.services.routing.test_failover import Setup, setup
from tests.stand.upstream import SSE_HEAD, STALL

TIMEOUT_S = 0.2
SILENT = (SSE_HEAD, STALL)


async def cuts(served: Setup, left_s: float) -> int:
    """The number of attempts that a deadline in `left_s` seconds cuts, where no channel answers."""
    route = served.route()
    targets = [
        replace(
            each, channel=msgspec.structs.replace(each.channel, first_token_timeout_s=TIMEOUT_S)
        )
        for each in route.targets
    ]
    deadline = asyncio.get_running_loop().time() + left_s

    message = Message(role="user", content=[TextPart(text="Hello")])
    spec = ChatCompletionSpec(model="public/m", messages=[message])
    attempts = CallAttempts(
        failover=served.failover,
        form=CompletionForm(spec=spec, dialects=served.failover.dialects),
        routes=[replace(route, targets=targets)],
        charges=served,
        record=served.record,
        time_left_s=lambda: deadline - asyncio.get_running_loop().time(),
    )
    with pytest.raises(Failure):
        await attempts.open()
    return len(served.cut)


@pytest.mark.parametrize("left_s", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("channels", [1, 2, 3])
async def test_no_more_attempts_are_cut_than_are_held_for(channels: int, left_s: float) -> None:
    """Also after an attempt that had the whole of its own timeout."""
    async with AsyncExitStack() as stack:
        served = await setup(stack, *[SILENT] * channels)
        most = cut_attempts_max([TIMEOUT_S] * channels, left_s)
        assert await cuts(served, left_s) <= most


def test_calls_with_much_time_hold_for_one_prompt() -> None:
    """A deadline that leaves each attempt its timeout cuts none."""
    assert cut_attempts_max([60.0] * 3, None) == 0
    assert cut_attempts_max([60.0] * 3, 180.0) == 0
    assert cut_attempts_max([60.0] * 3, 130.0) == 1
    assert cut_attempts_max([60.0] * 3, 100.0) == 2
    assert cut_attempts_max([60.0], 1.0) == 0
