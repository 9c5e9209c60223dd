"""Comparison of the call log with the ledger, for `ledger verify`.

C1  the charge of each row is that of its hold
C2  the sums of each day are those of its rows

A call may have no row: its process was killed, or the row was dropped. Then its hold is counted
(`holds_without_call`), so that the sum of the rows and of these holds is the ledger's.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.call_log.call_reader import END_OF_TIME_MS
from services.errors import Failure
from services.storage.audit import FINDINGS_MAX, Audit
from services.storage.base import Database
from services.storage.call_charges import (
    CallCharge,
    charges_after,
    charges_of_holds,
    count_ended_holds,
    day_sums,
)
from services.storage.call_rows import CallPosition
from services.storage.call_store import CallSegment, CallStore

ROWS_PER_READ = 500


UNREADABLE = Audit(counts={"call_log_unreadable": 1}, findings=())
"""Result where the log cannot be read, which says nothing against the ledger."""


async def audit_calls(store: CallStore, books: Database) -> Audit:
    """Compare all rows with their holds, in parts: calls may end meanwhile."""
    try:
        return await _audit(store, books)
    except Failure:
        return UNREADABLE


async def _audit(store: CallStore, books: Database) -> Audit:
    rows, first_ms, findings = 0, END_OF_TIME_MS, list[str]()
    for segment in await store.segments(0, END_OF_TIME_MS):
        after: CallPosition = (-1, "")
        while found := await segment.read(charges_after, ROWS_PER_READ, after):
            rows += len(found)
            first_ms = min(first_ms, found[0].at_ms)
            findings += await _differences(found, books)
            after = found[-1].at_ms, found[-1].id
        findings += await _wrong_sums(segment)
    ended = await books.read(count_ended_holds, first_ms)
    counts = {"calls": rows, "holds_without_call": max(0, ended - rows)}
    return Audit(counts=counts, findings=tuple(findings[:FINDINGS_MAX]))


async def _differences(calls: Sequence[CallCharge], books: Database) -> list[str]:
    charges = await books.read(charges_of_holds, [call.hold_id for call in calls])
    return [
        f"C1: charge differs from the hold's: {call.id}"
        for call in calls
        if charges.get(call.hold_id, call.charge) != call.charge
    ]


async def _wrong_sums(segment: CallSegment) -> list[str]:
    of_rows, of_days = await segment.read(day_sums)
    wrong = sorted(day for day in of_rows if of_rows[day] != of_days.get(day))
    return [f"C2: sums differ from the rows: day {day}" for day in wrong]
