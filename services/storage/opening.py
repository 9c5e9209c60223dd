"""Registry of the databases and counter stores, and the functions that open the configured one.

A new backend is one module in this package and one row here; the shared test suites then run
on it. Drivers are imported only where a URL names their backend: PostgreSQL's takes 24 ms of a
start, and Redis' 64 ms.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from services.clock import Clock
from services.storage.base import DEFAULTS, Database, DatabaseOptions, StateError
from services.storage.call_store import CallStore
from services.storage.counters import CounterStore, LocalCounters
from services.storage.reasoning import LocalReasoning, ReasoningStore
from services.storage.sqlite import SqliteDatabase
from services.storage.sqlite_calls import SqliteCalls


@dataclass(frozen=True, slots=True)
class Backend:
    """Backend that is opened by a URL, and the extra that installs its driver."""

    module: str
    factory: str
    """Name in `module`, dotted where it is a method."""
    extra: str

    def load(self, key: str) -> Callable[..., Any]:
        """Import the factory. Raise StateError, with the name of the extra, without its driver."""
        try:
            found: Any = import_module(f"{__package__}.{self.module}")
        except ModuleNotFoundError:
            message = f"{key} needs the extra: pip install 'pomogator[{self.extra}]'"
            raise StateError(message) from None
        for name in self.factory.split("."):
            found = getattr(found, name)
        factory: Callable[..., Any] = found
        return factory


POSTGRES = Backend("postgres", "PostgresDatabase.open", extra="postgres")
REDIS = Backend("redis", "RedisCounters", extra="redis")
REDIS_REASONING = Backend("redis_reasoning", "RedisReasoning", extra="redis")

DATABASES: Mapping[str, Backend] = {"postgres": POSTGRES, "postgresql": POSTGRES}
"""Databases by URL scheme. The factory is `async (url, options) -> Database`. No URL: SQLite."""

COUNTER_STORES: Mapping[str, Backend] = {"redis": REDIS, "rediss": REDIS, "unix": REDIS}
"""Counter stores by URL scheme. The factory is `(url, local, *, replicas)` and returns an async
context manager of a `CounterStore`. No URL means the counters of this process."""

CALL_STORES: Mapping[str, Backend] = dict.fromkeys(
    DATABASES, Backend("postgres_calls", "PostgresCalls", extra="postgres")
)
"""Stores of the call log by the schemes of databases. The factory is `(url, options)`. No URL:
SQLite."""

REASONING_STORES: Mapping[str, Backend] = dict.fromkeys(COUNTER_STORES, REDIS_REASONING)
"""Stores of sealed reasoning by the same schemes. The factory is `(url, local)` and returns an
async context manager of a `ReasoningStore`. No URL means the memory of this process."""


async def open_database(
    state: Path, database_url: str, clock: Clock, options: DatabaseOptions = DEFAULTS
) -> Database:
    """Open the database at `database_url`, or without one SQLite in `state`. Raise StateError."""
    if not database_url:
        return await SqliteDatabase.open(state, clock)
    factory = backend_of(DATABASES, "state.database_url", database_url)
    database: Database = await factory(database_url, options)
    return database


def call_store(state: Path, database_url: str, options: DatabaseOptions = DEFAULTS) -> CallStore:
    """Return the store of the call log at `database_url`, or without one SQLite in `state`.

    It connects when it is first used. Raise StateError for a URL of another kind.
    """
    if not database_url:
        return SqliteCalls(state)
    factory = backend_of(CALL_STORES, "state.call_log_url", database_url)
    store: CallStore = factory(database_url, options)
    return store


@asynccontextmanager
async def open_counters(
    redis_url: str, clock: Clock, *, replicas: Callable[[], int] = lambda: 1
) -> AsyncIterator[CounterStore]:
    """Open the counters at `redis_url`, or without one those of this process. Raise StateError.

    A server that does not answer is no error: until it does, the counters of this process
    grant one share of `replicas()`.
    """
    local = LocalCounters(clock)
    if not redis_url:
        yield local
        return
    factory = backend_of(COUNTER_STORES, "state.redis_url", redis_url)
    opening: AbstractAsyncContextManager[CounterStore] = factory(
        redis_url, local, replicas=replicas
    )
    async with opening as counters:
        yield counters


@asynccontextmanager
async def open_reasoning(redis_url: str, clock: Clock) -> AsyncIterator[ReasoningStore]:
    """Open the store of sealed reasoning at `redis_url`, or without one that of this process.

    The URL is that of the counters, which have been opened.
    """
    local = LocalReasoning(clock)
    if not redis_url:
        yield local
        return
    factory = backend_of(REASONING_STORES, "state.redis_url", redis_url)
    opening: AbstractAsyncContextManager[ReasoningStore] = factory(redis_url, local)
    async with opening as store:
        yield store


def backend_of(backends: Mapping[str, Backend], key: str, url: str) -> Callable[..., Any]:
    """Return the factory for the scheme of a URL. Raise StateError, with its key, without one."""
    scheme = url.partition(":")[0].lower()
    if scheme not in backends:
        schemes = " or ".join(f"{each}://" for each in sorted(backends))
        raise StateError(f"{key}: must begin with {schemes}")
    return backends[scheme].load(key)
