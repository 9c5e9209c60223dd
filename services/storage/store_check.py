"""Check of all stores of a configuration, for `pomogator check --connect`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import NamedTuple

from services.clock import Clock
from services.storage.base import ConnectionCheck, DatabaseOptions, StateError
from services.storage.opening import CALL_STORES, COUNTER_STORES, DATABASES, Backend, backend_of

DATABASE_CHECKS: Mapping[str, Backend] = {
    scheme: Backend("postgres_check", "check_database", backend.extra)
    for scheme, backend in DATABASES.items()
}
CALL_LOG_CHECKS: Mapping[str, Backend] = {
    scheme: Backend("postgres_check", "check_call_log", backend.extra)
    for scheme, backend in CALL_STORES.items()
}
DIRECT_URL_CHECKS: Mapping[str, Backend] = {
    scheme: Backend("postgres_check", "check_direct_url", backend.extra)
    for scheme, backend in DATABASES.items()
}
REDIS_CHECKS: Mapping[str, Backend] = {
    scheme: Backend("redis_check", "check_redis", backend.extra)
    for scheme, backend in COUNTER_STORES.items()
}
"""Checks by URL scheme. Those of databases are `async (url, options)`, that of Redis
`async (url, clock)`; all return a `ConnectionCheck`."""


class StoreUrls(NamedTuple):
    """URLs of the stores. Empty: the store has no server of its own."""

    database: str = ""
    call_log: str = ""
    redis: str = ""


class StoreCheck(NamedTuple):
    """Result for one store."""

    key: str
    """Key of the URL in the configuration."""
    result: ConnectionCheck


async def check_stores(
    urls: StoreUrls, options: DatabaseOptions, clock: Clock
) -> Sequence[StoreCheck]:
    """Connect to the stores that have a URL, all at a time."""
    checks = []
    if urls.database:
        key = "state.database_url"
        check = backend_of(DATABASE_CHECKS, key, urls.database)
        checks.append(_named(key, check(urls.database, options)))
    if urls.database and options.direct_url:
        key = "state.database_direct_url"
        check = backend_of(DIRECT_URL_CHECKS, key, options.direct_url)
        checks.append(_named(key, check(urls.database, options)))
    if urls.call_log:
        key = "state.call_log_url"
        check = backend_of(CALL_LOG_CHECKS, key, urls.call_log)
        checks.append(_named(key, check(urls.call_log, options)))
    if urls.redis:
        key = "state.redis_url"
        check = backend_of(REDIS_CHECKS, key, urls.redis)
        checks.append(_named(key, check(urls.redis, clock)))
    return await asyncio.gather(*checks)


async def _named(key: str, check: Awaitable[ConnectionCheck]) -> StoreCheck:
    try:
        return StoreCheck(key, await check)
    except StateError as error:  # The URL is not valid, so it has no address.
        text = str(error).removeprefix(f"{key}: ")
        return StoreCheck(key, ConnectionCheck("", text, permanent=True))
