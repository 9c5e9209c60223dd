"""PostgreSQL database, which several services share.

Each transaction has a pooled connection of its own. It runs in a task of its own, so a cancelled
caller does not interrupt it and the connection returns to the pool in a clean state. A frozen
server delays its callers by at most `COMMAND_TIMEOUT_S`.

Notices of other processes arrive over `LISTEN`, on one more connection with a heartbeat. After it
was lost, listeners get an empty notice: some may have been missed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from itertools import count
from typing import Any, Literal, TypeAlias

import asyncpg

from services.storage.base import (
    CHANNEL,
    NOTIFY,
    ConstraintError,
    Listener,
    P,
    Row,
    StateError,
    T,
    Transaction,
    Value,
    unavailable,
)
from services.storage.schema import VERSION, pending, tables

log = logging.getLogger(__name__)

POOL_MAX = 16
"""Maximum pool size of one process. The listening connection comes on top."""

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 5.0
"""Timeout of a statement in a writing transaction, and of waiting for a connection."""

READ_TIMEOUT_S = 60.0
"""Timeout of a reading statement. Reports read many rows."""

HEARTBEAT_S = 2.0
"""Heartbeat of the listening connection: the longest time a lost notice stays undetected."""

ATTEMPTS = 5
"""Attempts at a transaction that conflicts with others."""

MIGRATION_LOCK = 0x706F6D6F
"""Advisory lock of schema migrations: ASCII `pomo`."""

CONFLICT_ERRORS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
CONSTRAINT_ERRORS = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)
CONNECTION_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Isolation: TypeAlias = Literal["repeatable_read"]


class PostgresDatabase:
    """Database on a PostgreSQL server. Opened by `open`."""

    def __init__(self, url: str, pool: Pool) -> None:
        self._url = url
        self._pool = pool
        self._listeners: list[Listener] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._listening = asyncio.Event()
        self._healthy = True
        self._closed = False
        self._listener = asyncio.create_task(self._listen(), name="postgres notices")

    @classmethod
    async def open(cls, url: str) -> PostgresDatabase:
        """Connect and migrate the schema. Raise StateError if either fails."""
        try:
            pool = await asyncpg.create_pool(
                url, min_size=1, max_size=POOL_MAX, timeout=CONNECT_TIMEOUT_S
            )
            try:
                async with pool.acquire() as connection:
                    await _migrate(connection)
            except BaseException:
                pool.terminate()
                raise
        except CONNECTION_ERRORS as error:
            raise StateError(f"state.database_url: {_reason(error)}") from error
        database = cls(url, pool)
        await database._listening.wait()
        return database

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a transaction. Retry it when it conflicts with another one."""
        return await self._run(self._write(lambda: transaction(*args, **kwargs)))

    async def write_unsynced(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `write`: the server's machine can fail while this process survives."""
        return await self.write(transaction, *args, **kwargs)

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a transaction that only reads, on one snapshot."""
        return await self._run(self._read(lambda: transaction(*args, **kwargs)))

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each notice of any process."""
        self._listeners.append(listener)

    @property
    def healthy(self) -> bool:
        """Whether the last transaction was committed."""
        return self._healthy

    @property
    def hold_journal(self) -> None:
        """None: several services may share the database."""
        return None

    async def close(self) -> None:
        """Wait for running transactions, then close the connections. Idempotent."""
        self._closed = True
        self._listener.cancel()
        await asyncio.gather(self._listener, *self._running, return_exceptions=True)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._pool.close()
        except CONNECTION_ERRORS:
            self._pool.terminate()

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the work in a task of its own, which a cancelled caller does not interrupt."""
        if self._closed:
            work.close()
            raise unavailable()
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # Mark it as retrieved: the caller may have been cancelled.

    async def _write(self, begin: Callable[[], Transaction[T]]) -> T:
        for attempt in count(1):
            notices: list[str] = []
            try:
                async with self._transaction() as connection:
                    result = await _drive(connection, begin(), COMMAND_TIMEOUT_S, notices)
            except CONFLICT_ERRORS:
                if attempt < ATTEMPTS:
                    continue
                raise self._unavailable("conflict") from None
            except CONSTRAINT_ERRORS as error:
                raise ConstraintError(type(error).__name__) from error
            except CONNECTION_ERRORS as error:
                raise self._unavailable(type(error).__name__) from error
            self._healthy = True
            for payload in notices:
                self._notify_listeners(payload)
            return result
        raise AssertionError("counting does not end")

    async def _read(self, begin: Callable[[], Transaction[T]]) -> T:
        try:
            async with self._transaction(isolation="repeatable_read", readonly=True) as connection:
                return await _drive(connection, begin(), READ_TIMEOUT_S, [])
        except CONNECTION_ERRORS as error:
            raise self._unavailable(type(error).__name__) from error

    @asynccontextmanager
    async def _transaction(
        self, *, isolation: Isolation | None = None, readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """Acquire a connection and open a transaction, which is committed on exit."""
        async with self._pool.acquire(timeout=COMMAND_TIMEOUT_S) as connection:
            transaction = connection.transaction(isolation=isolation, readonly=readonly)
            with _terminate_after(connection, COMMAND_TIMEOUT_S):
                await transaction.start()
            try:
                yield connection
            except TimeoutError:
                # asyncpg has asked the server to cancel, and would wait for its confirmation.
                connection.terminate()
                raise
            except BaseException:
                with _terminate_after(connection, COMMAND_TIMEOUT_S):
                    await transaction.rollback()
                raise
            with _terminate_after(connection, COMMAND_TIMEOUT_S):
                await transaction.commit()

    def _unavailable(self, kind: str) -> Exception:
        if self._healthy:
            # Logged once, not for every call until the database recovers.
            log.error("storage.failed", extra={"reason": kind})
        self._healthy = False
        return unavailable()

    def _notify_listeners(self, payload: str) -> None:
        for listener in self._listeners:
            listener(payload)

    def _pass_on(self, *notice: object) -> None:
        self._notify_listeners(str(notice[-1]))

    async def _listen(self) -> None:
        """Deliver the notices of other processes. Reconnects for ever."""
        while True:
            with suppress(*CONNECTION_ERRORS):
                connection = await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT_S)
                try:
                    await self._listen_on(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(HEARTBEAT_S)

    async def _listen_on(self, connection: Connection) -> None:
        """Listen until the connection is lost, then raise."""
        await connection.add_listener(CHANNEL, self._pass_on)
        self._notify_listeners("")
        self._listening.set()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await connection.execute("SELECT 1", timeout=HEARTBEAT_S)


def _reason(error: Exception) -> str:
    """Return the reason of a failed connection. The error's own text may hold a password."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no answer in {CONNECT_TIMEOUT_S:g} seconds"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return type(error).__name__


@contextmanager
def _terminate_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Terminate the connection after `seconds`, which raises one of `CONNECTION_ERRORS` inside."""
    cut = asyncio.get_running_loop().call_later(seconds, connection.terminate)
    try:
        yield
    finally:
        cut.cancel()


async def _drive(
    connection: Connection, transaction: Transaction[T], timeout_s: float, notices: list[str]
) -> T:
    try:
        statement = next(transaction)
        while True:
            sql, values = statement
            if sql is NOTIFY:
                notices.append(str(values[-1]))
            rows: list[Row] = []
            for each in values if isinstance(values, list) else [values]:
                rows += await _rows(connection, sql, each, timeout_s)
            statement = transaction.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


async def _rows(
    connection: Connection, sql: str, values: Sequence[Value], timeout_s: float
) -> Sequence[Row]:
    if returns_rows(sql):
        rows = await connection.fetch(numbered(sql), *values, timeout=timeout_s)
        return [tuple(row) for row in rows]
    status = await connection.execute(numbered(sql), *values, timeout=timeout_s)
    _, _, changed = status.rpartition(" ")  # Such as `UPDATE 1`, `INSERT 0 1` or `DROP TABLE`.
    return [()] * int(changed) if changed.isdecimal() else []


@lru_cache(maxsize=256)
def returns_rows(sql: str) -> bool:
    """Return whether a statement returns rows."""
    return re.search(r"\bRETURNING\b|^\s*(?:SELECT|WITH)\b", sql) is not None


@lru_cache(maxsize=256)
def numbered(sql: str) -> str:
    """Replace each `?` by `$1`, `$2`, …. No literal in a statement contains `?`."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)


async def _migrate(connection: Connection) -> None:
    """Migrate the schema in one transaction. Of several processes the first one does it."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT)")
        version = await connection.fetchval("SELECT max(version) FROM schema_version") or 0
        await _check(connection, tables(version, "postgres"))
        for statements in pending(version, "postgres"):
            for statement in statements:
                await connection.execute(statement)
        if version < VERSION:
            await connection.execute("INSERT INTO schema_version VALUES ($1)", VERSION)


async def _check(connection: Connection, expected: Sequence[str]) -> None:
    missing = await connection.fetch(
        "SELECT name FROM unnest($1::TEXT[]) AS name WHERE to_regclass(name) IS NULL", expected
    )
    if missing:
        names = ", ".join(str(row[0]) for row in missing)
        raise StateError(f"state.database_url: tables are missing ({names}): restore a backup")
