"""Rows of the call log, their holds and their sums, as statements, for their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from services.storage.base import Transaction
from services.storage.call_rows import CallPosition
from services.storage.call_sums import DAY_MS, DIMENSIONS, HOUR_MS, MONEY
from services.storage.exact_sums import read_sums, sum_columns
from services.storage.hold_sums import CALLS
from services.storage.sum_table import TOKENS

SELECT_CHARGES = """
    SELECT at_ms, id, hold_id, charge, account, key_id FROM calls
    WHERE at_ms >= ? AND (at_ms, id) > (?, ?) AND (hold_id <> '' OR charge <> 0)
    ORDER BY at_ms, id LIMIT ?
"""
SELECT_DAYS = f"""
    SELECT DISTINCT at_ms / {DAY_MS} AS day FROM calls
    UNION SELECT start_ms / {DAY_MS} FROM call_sums
"""  # noqa: S608  Constants of these modules.
_NAMES = ", ".join(DIMENSIONS)
_FIGURES = sum_columns("failures", *TOKENS, *MONEY)
SUMS_OF_ROWS = f"""
    SELECT at_ms / {HOUR_MS} AS hour, {_NAMES}, count(*),
        {_FIGURES.replace("(failures)", "(CASE WHEN reason <> '' THEN 1 ELSE 0 END)")}
    FROM calls WHERE at_ms >= ? AND at_ms < ? GROUP BY hour, {_NAMES}
"""  # noqa: S608
KEPT_SUMS = f"""
    SELECT span_ms, start_ms, {_NAMES}, CAST(sum(calls) AS BIGINT), {_FIGURES}
    FROM call_sums WHERE start_ms >= ? AND start_ms < ? GROUP BY span_ms, start_ms, {_NAMES}
"""  # noqa: S608
COUNT_ENDED_HOLDS = f"""
    SELECT (SELECT count(*) FROM holds WHERE created_ms >= ? AND state <> 'held' AND extends = '')
        + (SELECT CAST(COALESCE(sum({CALLS}), 0) AS BIGINT) FROM hold_sums WHERE day >= ?)
"""  # noqa: S608


DELETED_HOLDS = f"""
    SELECT day, account, key_id, CAST(sum({CALLS}) AS BIGINT), {sum_columns("charge")}
    FROM hold_sums WHERE day = ? GROUP BY day, account, key_id
"""  # noqa: S608


class CallCharge(msgspec.Struct, frozen=True, array_like=True):
    """Charge of a row."""

    at_ms: int
    id: str
    hold_id: str
    charge: int
    account: str
    key_id: str


class EndedHold(msgspec.Struct, frozen=True, array_like=True):
    """Hold that has ended."""

    id: str
    charge: int
    account: str
    key_id: str
    created_ms: int


HoldDay = tuple[int, str, str]
"""Day, in days since 1970, account and key of holds."""
SumsKey = tuple[int, int, str, str, str, str, str]
"""Length and start of an interval, and the names of a group, in the order of `DIMENSIONS`."""
Sums = Mapping[SumsKey, Sequence[int]]
"""Calls, failures, tokens and money of groups."""


def charges_after(limit: int, after: CallPosition) -> Transaction[Sequence[CallCharge]]:
    """Return the charges of at most `limit` rows after the position, oldest first.

    Rows without a hold and a charge are left out.
    """
    rows = yield SELECT_CHARGES, (after[0], *after, limit)
    return [msgspec.convert(list(row), CallCharge) for row in rows]


def ended_holds(hold_ids: Sequence[str]) -> Transaction[Mapping[str, EndedHold]]:
    """Return those of the holds that have ended."""
    places = ", ".join("?" * len(hold_ids))
    columns = ", ".join(EndedHold.__struct_fields__)
    statement = f"SELECT {columns} FROM holds WHERE state <> 'held' AND id IN ({places})"  # noqa: S608
    rows = yield statement, tuple(hold_ids)
    holds = [msgspec.convert(list(row), EndedHold) for row in rows]
    return {hold.id: hold for hold in holds}


def deleted_holds(days: Sequence[int]) -> Transaction[Mapping[HoldDay, tuple[int, int]]]:
    """Return number and charge of the holds of days that were deleted after their retention."""
    found = {}
    for day in days:
        rows = yield DELETED_HOLDS, (day,)
        for row in rows:
            key = msgspec.convert(tuple(row[:3]), HoldDay)
            found[key] = msgspec.convert(row[3], int), read_sums(row[4:])[0]
    return found


def logged_days() -> Transaction[Sequence[int]]:
    """Return the days that have rows or sums, in days since 1970."""
    rows = yield SELECT_DAYS, ()
    return sorted(msgspec.convert(row[0], int) for row in rows)


def sums_of_day(day: int) -> Transaction[tuple[Sums, Sums]]:
    """Return the sums that the rows of a day have, and those that are kept, on one snapshot."""
    times = (day * DAY_MS, (day + 1) * DAY_MS)
    of_rows: dict[SumsKey, list[int]] = {}
    rows = yield SUMS_OF_ROWS, times
    for row in rows:
        hour, *names = msgspec.convert(list(row[:6]), tuple[int, str, str, str, str, str])
        figures = [msgspec.convert(row[6], int), *read_sums(row[7:])]
        for span_ms in (HOUR_MS, DAY_MS):
            start_ms = hour * HOUR_MS - hour * HOUR_MS % span_ms
            for group in (names, ["", "", *names[2:]]):
                key = msgspec.convert((span_ms, start_ms, *group), SumsKey)
                former = of_rows.get(key, [0] * len(figures))
                of_rows[key] = list(map(int.__add__, former, figures))
    rows = yield KEPT_SUMS, times
    kept = {
        msgspec.convert(list(row[:7]), SumsKey): [
            msgspec.convert(row[7], int),
            *read_sums(row[8:]),
        ]
        for row in rows
    }
    return of_rows, kept


def count_ended_holds(since_ms: int) -> Transaction[int]:
    """Return the number of holds, without extensions, that began at a time or later and ended.

    Those over their retention count from the next day on.
    """
    rows = yield COUNT_ENDED_HOLDS, (since_ms, -(-since_ms // DAY_MS))
    return msgspec.convert(rows[0][0], int)
