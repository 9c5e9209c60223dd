"""Pool of connections to PostgreSQL, bounded by the process and by what the server allows.

Where the server has no connection slot left, transactions wait for a connection of the pool, and
new ones are tried again after `FULL_S`. A connection that has turned out to be of no use expires
the whole pool: all others lead to the same server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.storage.postgres_connector import (
    CONNECTION_ERRORS,
    Connection,
    PostgresConnector,
    is_full,
)

FULL_S = 0.5
"""Time without attempts to connect after the server had no slot left."""

IDLE_MAX_S = 300.0
"""Time after which an unused connection is closed, at the end of the next transaction."""

CLOSE_TIMEOUT_S = 5.0


class BusyPoolError(TimeoutError):
    """All connections of the process were in use all the time, which says nothing of the server."""

    def __init__(self, most: int) -> None:
        super().__init__(f"all {most} connections of the pool are in use (state.connections)")


class PostgresPool:
    """Connections that transactions use one after another."""

    def __init__(self, connector: PostgresConnector, most: int) -> None:
        self._connector = connector
        self._most = most
        self._clock = asyncio.get_running_loop().time
        self._idle: list[tuple[Connection, float]] = []
        """Unused connections, and since when. The last one is used first."""
        self._open: dict[Connection, int] = {}
        """Generation of each open connection."""
        self._opening = 0
        self._generation = 0
        self._full_until = 0.0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()

    @property
    def size(self) -> int:
        """Number of open connections, with those that are being opened."""
        return len(self._open) + self._opening

    @asynccontextmanager
    async def connection(self, timeout_s: float) -> AsyncIterator[Connection]:
        """Lend a connection. Raise one of `CONNECTION_ERRORS` if none is free in time."""
        connection = await self._acquire(timeout_s)
        try:
            yield connection
        finally:
            self._release(connection)

    def expire(self) -> None:
        """Close all connections, those in use after their transaction."""
        self._generation += 1
        for connection, _ in self._idle:
            self._discard(connection)
        self._idle.clear()

    async def close(self) -> None:
        """Close all connections. No transaction runs any more."""
        idle, self._idle = self._idle, []
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(*(connection.close() for connection, _ in idle))
        except CONNECTION_ERRORS:
            pass
        for connection in list(self._open):
            self._discard(connection)

    async def _acquire(self, timeout_s: float) -> Connection:
        full: BaseException | None = None
        busy = False
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if (connection := self._unused()) is not None:
                        return connection
                    busy = self.size >= self._most and not self._opening
                    if self.size < self._most and self._clock() >= self._full_until:
                        try:
                            return await self._connect()
                        except CONNECTION_ERRORS as error:
                            if not is_full(error):
                                raise
                            full = error
                            self._full_until = self._clock() + FULL_S
                    elif (connection := await self._wait()) is not None:
                        return connection
        except TimeoutError:
            if full is not None:
                raise full from None
            if busy:
                raise BusyPoolError(self._most) from None
            raise

    def _unused(self) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._discard(connection)
        return None

    async def _connect(self) -> Connection:
        generation = self._generation
        self._opening += 1
        try:
            connection = await self._connector.connect()
        except BaseException:
            self._opening -= 1
            self._wake(None)
            raise
        self._opening -= 1
        self._open[connection] = generation
        return connection

    async def _wait(self) -> Connection | None:
        """Wait for a connection, or until one may be opened."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        pause = self._full_until - self._clock()
        try:
            async with asyncio.timeout(pause if pause > 0 else None):
                return await waiter
        except TimeoutError:
            return _result(waiter)
        except asyncio.CancelledError:
            if (connection := _result(waiter)) is not None:
                self._release(connection)
            raise

    def _release(self, connection: Connection) -> None:
        if connection.is_closed() or self._open.get(connection) != self._generation:
            self._discard(connection)
        elif not self._wake(connection):
            self._idle.append((connection, self._clock()))
            self._close_unused()

    def _close_unused(self) -> None:
        """Close connections that have been unused for `IDLE_MAX_S`."""
        old = self._clock() - IDLE_MAX_S
        while len(self._idle) > 1 and self._idle[0][1] < old:
            connection, _ = self._idle.pop(0)
            self._discard(connection)

    def _discard(self, connection: Connection) -> None:
        connection.terminate()
        if self._open.pop(connection, None) is not None:
            self._wake(None)

    def _wake(self, connection: Connection | None) -> bool:
        """Give the connection, or the place of a closed one, to the waiter that came first."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False


def _result(waiter: asyncio.Future[Connection | None]) -> Connection | None:
    """Return the connection that arrived together with the end of the wait."""
    if waiter.done() and not waiter.cancelled():
        return waiter.result()
    return None
