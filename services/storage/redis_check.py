"""Check of the URL of a Redis server: whether both scripts run there."""

from __future__ import annotations

from services.clock import Clock
from services.storage.base import ConnectionCheck
from services.storage.counters import LocalCounters
from services.storage.reasoning import LocalReasoning
from services.storage.redis import RedisCounters
from services.storage.redis_reasoning import RedisReasoning


async def check_redis(url: str, clock: Clock) -> ConnectionCheck:
    """Connect as a start does, with a counter and a turn that no call uses."""
    limits = RedisCounters(url, LocalCounters(clock))
    reasoning = RedisReasoning(url, LocalReasoning(clock))
    async with limits, reasoning:
        failed = limits.client if limits.client.failure else reasoning.client
        return ConnectionCheck(failed.address, failed.failure, failed.failure_is_permanent)
