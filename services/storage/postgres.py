"""PostgreSQL database, which several services share.

Each transaction has a pooled connection of its own. It runs in a task of its own, so a cancelled
caller does not interrupt it and the connection returns to the pool in a clean state. A frozen
server delays its callers by at most `COMMAND_TIMEOUT_S`. After a failure that says that its server
is the wrong one, or shuts down, a transaction that was not being committed runs once more on a new
connection.

`postgres_connector` opens connections, `postgres_pool` lends them, `postgres_notices` delivers the
notices of other processes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, Literal, TypeAlias

import asyncpg
from asyncpg.transaction import Transaction as AsyncTransaction

from services.storage.base import (
    DEFAULTS,
    NOTIFY,
    ConstraintError,
    DatabaseOptions,
    Listener,
    LockedError,
    P,
    Row,
    StateError,
    T,
    Transaction,
    Value,
    unavailable,
)
from services.storage.postgres_connector import (
    CONNECTION_ERRORS,
    Connection,
    PostgresConnector,
    describe,
    is_closing,
    is_full,
    is_renamed,
)
from services.storage.postgres_notices import PostgresNotices
from services.storage.postgres_pool import PostgresPool
from services.storage.postgres_schema import log_missing_slots, migrate
from services.storage.schema import BOOKS, Schema

log = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 5.0
"""Timeout of a statement in a writing transaction."""

READ_TIMEOUT_S = 60.0
"""Timeout of a reading statement. Reports read many rows."""

COUNTED_NOTIFY = """
    WITH counted AS (UPDATE notices SET number = number + 1)
    SELECT pg_notify(?, ?)
"""
"""`NOTIFY`, which also counts the notice for processes that poll."""

NOTICES_TIMEOUT_S = 10.0
"""Longest wait of a start for the notices of other processes."""

ATTEMPTS = 5
"""Attempts at a transaction that conflicts with others."""

CONFLICT_ERRORS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
CONSTRAINT_ERRORS = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)

Isolation: TypeAlias = Literal["repeatable_read"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Kind of transaction."""

    isolation: Isolation | None = None
    readonly: bool = False


WRITE = _Kind()
READ = _Kind(isolation="repeatable_read", readonly=True)


class PostgresDatabase:
    """Database on a PostgreSQL server. Opened by `open`."""

    def __init__(self, connector: PostgresConnector, options: DatabaseOptions) -> None:
        """`connector` leads to the server, or to a pooler in front of it."""
        self._connector = connector
        # The connection that listens counts, too.
        self._pool = PostgresPool(connector, max(1, options.connections - 1))
        self._listeners: list[Listener] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._healthy = True
        self.failures = 0
        self._closed = False
        self._notices = PostgresNotices(
            PostgresConnector(options.direct_url, key="state.database_direct_url")
            if options.direct_url
            else connector,
            self.write,
            self._notify_listeners,
        )
        self._listener: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, url: str, options: DatabaseOptions = DEFAULTS, schema: Schema = BOOKS
    ) -> PostgresDatabase:
        """Connect and migrate the schema. Raise StateError if either fails."""
        database = cls(PostgresConnector(url, options.prepared_statements), options)
        try:
            await database._start(options, schema)
        except BaseException:
            await database.close()
            raise
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
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._pool.close()

    async def _start(self, options: DatabaseOptions, schema: Schema) -> None:
        try:
            timeout_s = max(COMMAND_TIMEOUT_S, self._connector.timeout_s + 1)
            async with self._pool.connection(timeout_s) as connection:
                await self._connector.probe(connection)
                await migrate(connection, schema)
                if self._connector.direct:
                    await log_missing_slots(connection, self._pool.size, options.connections)
        except CONNECTION_ERRORS as error:
            full = f"; this process needs 2 to {options.connections} (state.connections)"
            reason = describe(error) + full * is_full(error)
            raise StateError(f"state.database_url: {reason}") from error
        if self._connector.named_statements:
            self._pool.expire()  # The first connection names none.
        if options.notices:
            self._listener = asyncio.create_task(self._notices.run(), name="postgres notices")
            with suppress(TimeoutError):  # It goes on trying, and tells that some were missed.
                async with asyncio.timeout(NOTICES_TIMEOUT_S):
                    await self._notices.ready.wait()

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the work in a task of its own, which a cancelled caller does not interrupt."""
        if self._closed:
            work.close()
            self.failures += 1
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
        notices: list[str] = []
        for attempt in count(1):
            notices.clear()
            try:
                result = await self._attempt_twice(WRITE, begin, notices)
            except CONFLICT_ERRORS as error:
                if attempt < ATTEMPTS:
                    continue
                raise self._unavailable(error) from None
            except CONSTRAINT_ERRORS as error:
                raise ConstraintError(type(error).__name__) from error
            except asyncpg.LockNotAvailableError as error:
                raise LockedError from error
            except CONNECTION_ERRORS as error:
                raise self._unavailable(error) from error
            self._healthy = True
            for payload in notices:
                self._notify_listeners(payload)
            return result
        raise AssertionError("counting does not end")

    async def _read(self, begin: Callable[[], Transaction[T]]) -> T:
        try:
            return await self._attempt_twice(READ, begin, [])
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from error

    async def _attempt_twice(
        self, kind: _Kind, begin: Callable[[], Transaction[T]], notices: list[str]
    ) -> T:
        """Run a transaction, and once more if its connection was at fault, and not its commit."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            return await self._attempt(kind, begin, notices)
        except _LostConnectionError as lost:
            if lost.committing or clock() - begun > COMMAND_TIMEOUT_S / 2:
                raise lost.reason from None
        notices.clear()
        try:
            return await self._attempt(kind, begin, notices)
        except _LostConnectionError as lost:
            raise lost.reason from None

    async def _attempt(
        self, kind: _Kind, begin: Callable[[], Transaction[T]], notices: list[str]
    ) -> T:
        """Run a transaction. Raise _LostConnectionError if its connection is of no use."""
        async with self._pool.connection(COMMAND_TIMEOUT_S) as connection:
            committing = False
            try:
                async with _rolled_back(connection, kind) as transaction:
                    timeout_s = READ_TIMEOUT_S if kind.readonly else COMMAND_TIMEOUT_S
                    result = await _drive(connection, begin(), timeout_s, notices)
                committing = True
                with _terminate_after(connection, COMMAND_TIMEOUT_S):
                    await transaction.commit()
            except CONNECTION_ERRORS as error:
                if not self._is_lost(connection, error):
                    raise
                connection.terminate()
                raise _LostConnectionError(error, committing=committing) from error
            return result

    def _is_lost(self, connection: Connection, error: Exception) -> bool:
        """Return whether the connection is of no use. Then expire the pool if it is the server."""
        if is_closing(error) or (is_renamed(error) and self._connector.stop_naming()):
            self._pool.expire()
            return True
        return connection.is_closed()

    def _unavailable(self, error: Exception) -> Exception:
        if self._healthy:
            # Logged once, not for every call until the database recovers.
            log.error("storage.failed", extra={"reason": describe(error)})
        self._healthy = False
        self.failures += 1
        return unavailable()

    def _notify_listeners(self, payload: str) -> None:
        for listener in self._listeners:
            listener(payload)


class _LostConnectionError(Exception):
    """The connection of a transaction is of no use any more."""

    def __init__(self, reason: Exception, *, committing: bool) -> None:
        """`committing` means that the transaction may have taken effect."""
        super().__init__(reason)
        self.reason = reason
        self.committing = committing


@asynccontextmanager
async def _rolled_back(connection: Connection, kind: _Kind) -> AsyncIterator[AsyncTransaction]:
    """Open a transaction, which is rolled back after an error. The caller commits it."""
    transaction = connection.transaction(isolation=kind.isolation, readonly=kind.readonly)
    with _terminate_after(connection, COMMAND_TIMEOUT_S):
        await transaction.start()
    try:
        yield transaction
    except TimeoutError:
        # asyncpg has asked the server to cancel, and would wait for its confirmation.
        connection.terminate()
        raise
    except BaseException:
        if not connection.is_closed():
            with _terminate_after(connection, COMMAND_TIMEOUT_S), suppress(*CONNECTION_ERRORS):
                await transaction.rollback()
        raise


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
                sql = COUNTED_NOTIFY
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
