"""Charges of the call log and of holds, as statements, for their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from services.storage.base import Transaction
from services.storage.call_rows import CallPosition
from services.storage.call_sums import DAY_MS
from services.storage.exact_sums import read_sums, sum_columns

SELECT_CHARGES = """
    SELECT at_ms, id, hold_id, charge FROM calls
    WHERE at_ms >= ? AND (at_ms, id) > (?, ?) AND hold_id <> '' ORDER BY at_ms, id LIMIT ?
"""
SUMS_OF_ROWS = f"""
    SELECT at_ms / {DAY_MS} AS day, count(*), {sum_columns("charge")} FROM calls GROUP BY day
"""  # noqa: S608  Constants of these modules.
SUMS_OF_DAYS = f"""
    SELECT start_ms / {DAY_MS} AS day, CAST(sum(calls) AS BIGINT), {sum_columns("charge")}
    FROM call_sums WHERE span_ms = {DAY_MS} AND account <> '' GROUP BY day
"""  # noqa: S608
COUNT_ENDED_HOLDS = """
    SELECT count(*) FROM holds WHERE created_ms >= ? AND state <> 'held' AND extends = ''
"""


class CallCharge(msgspec.Struct, frozen=True):
    """Charge of a row that has a hold."""

    at_ms: int
    id: str
    hold_id: str
    charge: int


DaySums = Mapping[int, tuple[int, int]]
"""Number and charge of calls by day, in days since 1970."""


def charges_after(limit: int, after: CallPosition) -> Transaction[Sequence[CallCharge]]:
    """Return the charges of at most `limit` rows after the position, oldest first."""
    rows = yield SELECT_CHARGES, (after[0], *after, limit)
    return [CallCharge(*msgspec.convert(row, tuple[int, str, str, int])) for row in rows]


def charges_of_holds(hold_ids: Sequence[str]) -> Transaction[Mapping[str, int]]:
    """Return the charges of those of the holds that have ended."""
    places = ", ".join("?" * len(hold_ids))
    statement = f"SELECT id, charge FROM holds WHERE state <> 'held' AND id IN ({places})"  # noqa: S608
    rows = yield statement, tuple(hold_ids)
    return dict(msgspec.convert(row, tuple[str, int]) for row in rows)


def day_sums() -> Transaction[tuple[DaySums, DaySums]]:
    """Return the sums of rows by day, and what the sums of days say, on one snapshot."""
    found = []
    for statement in (SUMS_OF_ROWS, SUMS_OF_DAYS):
        rows = yield statement, ()
        days: dict[int, tuple[int, int]] = {}
        for row in rows:
            day, calls = msgspec.convert(list(row[:2]), tuple[int, int])
            days[day] = calls, read_sums(row[2:])[0]
        found.append(days)
    return found[0], found[1]


def count_ended_holds(since_ms: int) -> Transaction[int]:
    """Return the number of holds, without extensions, that began at a time or later and ended."""
    rows = yield COUNT_ENDED_HOLDS, (since_ms,)
    return msgspec.convert(rows[0][0], int)
