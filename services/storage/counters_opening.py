"""Opens the counters that the configuration names.

Redis' client is loaded for those who have named a server: it takes 64 ms of every start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from services.clock import Clock
from services.storage.base import StateError
from services.storage.counters import CounterStore, LocalCounters

if TYPE_CHECKING:
    from services.storage.redis import RedisCounters


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
    else:
        try:
            counters = _redis()(redis_url, local, replicas=replicas)
        except ValueError:  # Its text would show the URL, and that may hold a password.
            raise StateError("state.redis_url: is no URL of Redis'") from None
        async with counters as shared:
            yield shared


def _redis() -> type[RedisCounters]:
    try:
        found: type[RedisCounters] = import_module("services.storage.redis").RedisCounters
    except ModuleNotFoundError:  # Its client comes with the extra `redis`.
        message = "state.redis_url needs the extra: pip install 'pomogator[redis]'"
        raise StateError(message) from None
    return found
