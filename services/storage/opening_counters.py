"""Opens the counters that the configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.clock import Clock
from services.storage.base import StateError
from services.storage.counters import CounterStore, LocalCounters

try:
    from services.storage.redis import RedisCounters
except ModuleNotFoundError:  # Its client comes with the extra `redis`.
    RedisCounters = None  # type: ignore[assignment, misc]


@asynccontextmanager
async def open_counters(
    redis_url: str, clock: Clock, *, replicas: int = 1
) -> AsyncIterator[CounterStore]:
    """Counters at `redis_url`, or without one in this process. StateError if it cannot.

    A server that does not answer is no reason: until it does, the counters of this process
    grant one share of `replicas`.
    """
    local = LocalCounters(clock)
    if not redis_url:
        yield local
    elif RedisCounters is None:
        raise StateError("state.redis_url needs the extra: pip install 'pomogator[redis]'")
    else:
        try:
            counters = RedisCounters(redis_url, local, replicas=replicas)
        except ValueError:  # Its text would show the URL, and that may hold a password.
            raise StateError("state.redis_url: is no URL of Redis'") from None
        async with counters as shared:
            yield shared
