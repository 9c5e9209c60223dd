"""A Redis whose memory is full: which of its keys it evicts, and what that costs."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from services.clock import SystemClock
from services.storage.counters import LocalCounters, Meter, MeterKind
from services.storage.reasoning import LocalReasoning, TurnBounds, TurnKeys
from services.storage.redis import RedisCounters
from services.storage.redis_reasoning import KEY_PREFIX, RedisReasoning
from tests.deploy.test_compose import SERVICES
from tests.stand.valkey import running_valkey

MEMORY_MB = 8
TURN = bytes(500_000)
ONCE = Meter("once", MeterKind.REQUESTS, 1)
EVICTED_S = 1.1
"""Idle times are counted in whole seconds."""


async def test_reasoning_is_evicted_before_counters() -> None:
    """With compose's settings, limits stay shared, and counters in use are not evicted."""
    flags = list(SERVICES["valkey"]["command"][1:])
    flags[flags.index("--maxmemory") + 1] = f"{MEMORY_MB}mb"
    with running_valkey(*flags) as valkey:
        async with (
            RedisCounters(valkey.url, LocalCounters(SystemClock())) as counters,
            RedisReasoning(valkey.url, LocalReasoning(SystemClock())) as reasoning,
            Redis(port=valkey.port) as admin,
        ):
            await fill(reasoning, 0, 10)
            await asyncio.sleep(EVICTED_S)
            assert (await counters.take([ONCE], 0, "")).refused < 0

            await fill(reasoning, 10, 16)

            evicted = (await admin.info("stats"))["evicted_keys"]
            assert evicted > 0
            assert counters.shared
            assert (await counters.take([ONCE], 0, "")).refused == 0


async def fill(reasoning: RedisReasoning, first: int, last: int) -> None:
    """Remember a turn of each account, and wait until the server has it."""
    for number in range(first, last):
        reasoning.remember(f"account-{number}", TurnKeys([f"call-{number}"], []), TURN)
        await reasoning.recall(f"account-{number}", ["unknown"])  # Answered after the turn.


@pytest.mark.parametrize("evicted", ["turns", "ages"])
async def test_a_key_that_was_evicted_costs_only_turns(evicted: str) -> None:
    """An account that lost one of its two keys remembers again, within its bounds."""
    bounds = TurnBounds(turns=3, size=4000)
    with running_valkey() as valkey:
        local = LocalReasoning(SystemClock(), of_account=TurnBounds(turns=0, size=0))
        async with (
            RedisReasoning(valkey.url, local, of_account=bounds) as reasoning,
            Redis(port=valkey.port) as admin,
        ):
            for number in range(3):
                reasoning.remember("a", TurnKeys([f"old-{number}"], []), bytes(1200))
            assert await reasoning.recall("a", ["old-2"]) == [bytes(1200)]
            await admin.delete(f"{KEY_PREFIX}a:{evicted}")

            for number in range(3):
                reasoning.remember("a", TurnKeys([f"new-{number}"], []), bytes(1200))

            found = await reasoning.recall("a", ["old-2", "new-0", "new-1", "new-2"])
            assert found == [None, *[bytes(1200)] * 3]
            assert reasoning.shared
            size = await admin.hget(f"{KEY_PREFIX}a:turns", "size")
            assert size is not None
            assert int(size) <= bounds.size
