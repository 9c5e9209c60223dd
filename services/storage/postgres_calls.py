"""Call log on a PostgreSQL server: one table, with a partition for each day (UTC).

The partition of a day is created before its first row, and dropped after its retention.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from services.storage.base import (
    ConstraintError,
    DatabaseOptions,
    P,
    StateError,
    T,
    Transaction,
    unavailable,
)
from services.storage.call_labels import FORGET as FORGET_LABELS
from services.storage.call_schema import CALL_LOG
from services.storage.call_store import FORGET_WRITERS, CallBatch, CallSegment, write_batch
from services.storage.call_sums import DAY_MS, forget_sums
from services.storage.postgres import PostgresDatabase

log = logging.getLogger(__name__)

READERS = 2
"""Reads at a time. Further ones wait."""

CONNECTIONS = READERS + 1
"""Most connections of the log, besides those of the books. Reads leave one to the writer."""

LOCK_PARTITIONS = "SELECT pg_advisory_xact_lock(?)"
PARTITIONS_LOCK = 0x706F6D63
"""Advisory lock of changes to partitions: ASCII `pomc`."""

SELECT_PARTITIONS = """
    SELECT CAST(relname AS TEXT) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = CAST('calls' AS regclass)
"""


PLAN_FOR_VALUES = "SELECT set_config('plan_cache_mode', 'force_custom_plan', TRUE)"
"""For one transaction. PostgreSQL takes the plan for any values where it seems cheaper, and to it a
least charge is that of a third of all rows."""


class PostgresCalls:
    """Call log on a server. It is connected by its first use."""

    def __init__(self, url: str, options: DatabaseOptions) -> None:
        self._url = url
        self._options = DatabaseOptions(
            notices=False,
            connections=1 + CONNECTIONS,  # The first one is for notices, which are off.
            prepared_statements=options.prepared_statements,
        )
        self._database: PostgresDatabase | None = None
        self._connecting = asyncio.Lock()
        self._reads = asyncio.Semaphore(READERS)
        self._days: frozenset[int] = frozenset()
        """Days that are known to have a partition, in days since 1970."""

    async def write(self, batch: CallBatch) -> None:
        """Write a batch, into partitions that exist or are created."""
        try:
            await self._write(batch)
        except ConstraintError:
            # Another process may have dropped a partition that this one knows.
            self._days = frozenset()
            await self._write(batch)

    async def _write(self, batch: CallBatch) -> None:
        database = await self._opened()
        days = {row.at_ms // DAY_MS for row in batch.rows}
        today = batch.at_ms // DAY_MS
        if not days <= self._days or today not in self._days:
            # Tomorrow's, too: midnight finds it ready.
            wanted = sorted(days | {today, today + 1})
            await database.write(_create_partitions, wanted)
            self._days |= set(wanted)
        await database.write(write_batch, batch, "postgres")

    async def segments(self, start_ms: int, end_ms: int) -> Sequence[CallSegment]:
        """Return the whole log."""
        return [ServerSegment(await self._opened(), self._reads, (start_ms, end_ms))]

    async def forget(self, before_ms: int) -> None:
        """Drop the partitions of older days, and delete their sums."""
        database = await self._opened()
        dropped = await database.write(_forget, before_ms)
        if dropped:
            self._days -= set(dropped)
            log.info("call_log.days_dropped", extra={"days": len(dropped)})

    async def close(self) -> None:
        """Close the connections."""
        if self._database is not None:
            await self._database.close()

    async def _opened(self) -> PostgresDatabase:
        async with self._connecting:
            if self._database is None:
                try:
                    self._database = await PostgresDatabase.open(self._url, self._options, CALL_LOG)
                except StateError as error:
                    raise unavailable() from error
            return self._database


class ServerSegment:
    """The whole log."""

    def __init__(
        self, database: PostgresDatabase, reads: asyncio.Semaphore, times_ms: tuple[int, int]
    ) -> None:
        """`reads` is held by each read, so that rows are written beside them."""
        self._database = database
        self._reads = reads
        self._times_ms = times_ms

    @property
    def times_ms(self) -> tuple[int, int]:
        """The times that are asked for."""
        return self._times_ms

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a transaction on one snapshot."""
        async with self._reads:
            return await self._database.read(_planned, lambda: transaction(*args, **kwargs))


def _planned(begin: Callable[[], Transaction[T]]) -> Transaction[T]:
    """Run a transaction whose statements are planned for their values: rare ones need an index."""
    yield PLAN_FOR_VALUES, ()
    return (yield from begin())


def _create_partitions(days: Sequence[int]) -> Transaction[None]:
    yield LOCK_PARTITIONS, (PARTITIONS_LOCK,)
    for day in days:
        # DDL takes no parameters. These are numbers of ours.
        times = f"FROM ({day * DAY_MS}) TO ({(day + 1) * DAY_MS})"
        name = _name(day)
        yield f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF calls FOR VALUES {times}", ()


def _drop_partitions(before: int) -> Transaction[list[int]]:
    """Drop the partitions of days before a day. Return their days."""
    yield LOCK_PARTITIONS, (PARTITIONS_LOCK,)
    rows = yield SELECT_PARTITIONS, ()
    days = [day for day in _days(str(row[0]) for row in rows) if day < before]
    for day in days:
        yield f"DROP TABLE {_name(day)}", ()
    return days


def _forget(before_ms: int) -> Transaction[list[int]]:
    """Forget older days with their sums, and processes that have not written since.

    Return the days whose partitions are dropped. That comes last: it locks the whole table.
    """
    yield from forget_sums(before_ms)
    yield FORGET_LABELS, (before_ms,)
    yield FORGET_WRITERS, (before_ms,)
    return (yield from _drop_partitions(before_ms // DAY_MS))


def _name(day: int) -> str:
    return f"calls_{datetime.fromtimestamp(day * DAY_MS / 1000, UTC):%Y%m%d}"


def _days(names: Iterator[str]) -> Iterator[int]:
    for name in names:
        text = name.removeprefix("calls_")
        if len(text) == 8 and text.isdecimal():
            moment = datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)
            yield round(moment.timestamp() * 1000) // DAY_MS
