"""Comparison of the call log with the ledger, for `ledger verify`.

C1  each row with a hold or a charge is the only one of its hold, and has its account, key, time
    and charge; rows of holds that were deleted after their retention have no more than the sums
    of these, by day, account and key
C2  the sums of hours and of days, by names and over all accounts, are those of their rows

A call may have no row: its process was killed, or the row was dropped. Then its hold is counted
(`holds_without_call`), so that the sum of the rows and of these holds is the ledger's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.accounts.proto_fields import END_OF_TIME_MS
from services.errors import Failure
from services.storage.audit import FINDINGS_MAX, Audit
from services.storage.base import Database
from services.storage.call_charges import (
    CallCharge,
    EndedHold,
    HoldDay,
    charges_after,
    count_ended_holds,
    deleted_holds,
    ended_holds,
    logged_days,
    sums_of_day,
)
from services.storage.call_rows import CallPosition
from services.storage.call_store import CallSegment, CallStore
from services.storage.call_sums import DAY_MS

ROWS_PER_READ = 500

UNREADABLE = Audit(counts={"call_log_unreadable": 1}, findings=())
"""Result where the log cannot be read, which says nothing against the ledger."""


@dataclass(slots=True)
class RowsOfDay:
    """Rows of a day, account and key whose holds are not there."""

    first_id: str
    has_none: bool = False
    """Whether a row never had a hold."""
    calls: int = 0
    charge: int = 0

    def add(self, call: CallCharge) -> None:
        """Add a row."""
        self.has_none |= not call.hold_id
        self.calls += 1
        self.charge += call.charge

    def is_within(self, deleted: tuple[int, int]) -> bool:
        """Whether so many deleted holds, with this charge, can be those of the rows."""
        return not self.has_none and self.calls <= deleted[0] and self.charge <= deleted[1]


async def audit_calls(store: CallStore, books: Database) -> Audit:
    """Compare all rows with their holds, in parts: calls may end meanwhile."""
    try:
        return await _audit(store, books)
    except Failure:
        return UNREADABLE


async def _audit(store: CallStore, books: Database) -> Audit:
    rows, first_ms, findings = 0, END_OF_TIME_MS, list[str]()
    deleted: dict[HoldDay, RowsOfDay] = {}
    for segment in await store.segments(0, END_OF_TIME_MS):
        after: CallPosition = (-1, "")
        before: Sequence[CallCharge] = ()
        while found := await segment.read(charges_after, ROWS_PER_READ, after):
            rows += len(found)
            first_ms = min(first_ms, found[0].at_ms)
            holds = await books.read(ended_holds, [call.hold_id for call in found])
            findings += _differences(
                [call for call in found if call.hold_id in holds], holds, before
            )
            for call in found:
                if call.hold_id not in holds:
                    day = (call.at_ms // DAY_MS, call.account, call.key_id)
                    deleted.setdefault(day, RowsOfDay(call.id)).add(call)
            after, before = (found[-1].at_ms, found[-1].id), found
        findings += await _wrong_sums(segment)
    sums = await books.read(deleted_holds, sorted({day for day, _, _ in deleted}))
    findings += [
        f"C1: row without a hold that has ended: {each.first_id}"
        for day, each in deleted.items()
        if not each.is_within(sums.get(day, (0, 0)))
    ]
    ended = await books.read(count_ended_holds, first_ms)
    counts = {"calls": rows, "holds_without_call": max(0, ended - rows)}
    return Audit(counts=counts, findings=tuple(findings[:FINDINGS_MAX]))


def _differences(
    calls: Sequence[CallCharge], holds: Mapping[str, EndedHold], before: Sequence[CallCharge]
) -> Iterator[str]:
    """Yield the faults of calls that have one of the holds. `before` are the calls before them."""
    # Rows of one hold have one time, so they are neighbours.
    seen = {call.hold_id for call in before}
    for call in calls:
        hold = holds[call.hold_id]
        if (call.account, call.key_id, call.at_ms) != (hold.account, hold.key_id, hold.created_ms):
            yield f"C1: account, key or time differ from the hold's: {call.id}"
        if call.charge != hold.charge:
            yield f"C1: charge differs from the hold's: {call.id}"
        if call.hold_id in seen:
            yield f"C1: another row has the same hold: {call.id}"
        seen.add(call.hold_id)


async def _wrong_sums(segment: CallSegment) -> list[str]:
    wrong = []
    for day in await segment.read(logged_days):
        of_rows, kept = await segment.read(sums_of_day, day)
        if of_rows != kept:
            date = datetime.fromtimestamp(day * DAY_MS / 1000, UTC)
            wrong.append(f"C2: sums differ from the rows: {date:%Y-%m-%d}")
    return wrong
