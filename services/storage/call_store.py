"""Interface of stores of the call log, and the transaction that writes a batch.

A store is opened when it is first used, and a failure is that use's: calls never wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from services.storage.base import P, T, Transaction
from services.storage.call_labels import add_labels
from services.storage.call_rows import CallRow, insert_calls
from services.storage.call_sums import add_calls

CLAIM_BATCH = """
    INSERT INTO call_writers (writer, batch, at_ms) VALUES (?, ?, ?)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, at_ms = excluded.at_ms
    WHERE call_writers.batch < excluded.batch
"""
FORGET_WRITERS = "DELETE FROM call_writers WHERE at_ms < ?"


class CallBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are written together, once."""

    writer: str
    """Unique name of the process."""
    number: int
    """Number of the batch, larger than those of the writer's earlier ones."""
    at_ms: int
    """Time of the batch."""
    rows: Sequence[CallRow]


class CallSegment(Protocol):
    """Part of the log that one statement can read: all of a server, or a month in SQLite."""

    @property
    def times_ms(self) -> tuple[int, int]:
        """Times of its rows: [start, end)."""
        ...

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a transaction that only reads. Raise Failure STORAGE_UNAVAILABLE."""
        ...


class CallStore(Protocol):
    """Store of the call log. Its methods raise Failure STORAGE_UNAVAILABLE."""

    async def write(self, batch: CallBatch) -> None:
        """Write a batch and its sums, unless that was done. Raise ConstraintError if refused."""
        ...

    async def segments(self, start_ms: int, end_ms: int) -> Sequence[CallSegment]:
        """Return the segments that may have rows of these times, newest first."""
        ...

    async def forget(self, before_ms: int) -> None:
        """Drop what is older as a whole, in whole partitions or files."""
        ...

    async def close(self) -> None:
        """Close the store. Idempotent."""
        ...


def write_batch(batch: CallBatch, dialect: str) -> Transaction[bool]:
    """Write a batch. Return False if it is there already."""
    claimed = yield CLAIM_BATCH, (batch.writer, batch.number, batch.at_ms)
    if not claimed:
        return False
    yield from insert_calls(batch.rows, dialect)
    yield from add_calls(batch.rows, dialect)
    yield from add_labels(batch.rows, dialect)
    return True
