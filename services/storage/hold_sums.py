"""Sums of ended holds that are over the retention, as statements, by account, day, model and key.

A batch deletes holds and adds them to their sums in one transaction, so that sums over both are the
same before and after, whatever ends the process. Charges stay in `transfers`, one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from services.storage.base import ConstraintError, Row, Transaction, Values
from services.storage.sum_table import TOKENS, SumTable

DAY_MS = 86_400_000

LEASE_MS = 60_000
"""Time for which one process alone deletes holds, from each of its batches on."""

STATES: Sequence[str] = ("settled", "voided", "recovered")
KEY: Sequence[str] = ("account", "day", "model", "key_id", "month")
AMOUNTS: Sequence[str] = (*TOKENS, "charge", "overrun")
FIGURES: Sequence[str] = (*STATES, *AMOUNTS)

CALLS = "(settled + voided + recovered)"
"""Number of calls of a row."""

CLAIM = """
    UPDATE hold_retention SET owner = ?, until_ms = now_ms() + ?,
        before_ms = CASE WHEN before_ms < ? THEN ? ELSE before_ms END
    WHERE owner = ? OR until_ms < now_ms() OR until_ms > now_ms() + ?
"""
# IDs of holds begin with their time, and so are in its order.
_OLD = """
    SELECT id FROM holds WHERE id > ? AND id < ? AND created_ms < ? AND ended_ms < ?
        AND state <> 'held' AND extends = '' AND NOT EXISTS (
            SELECT 1 FROM holds AS more
            WHERE more.extends = holds.id AND more.extends <> '' AND more.state = 'held')
    ORDER BY id LIMIT ?
"""
_RETURNED = f"id, account, created_ms, model, key_id, month, extends, state, {', '.join(AMOUNTS)}"
DELETE_OLD = f"""
    DELETE FROM holds WHERE id IN ({_OLD}) RETURNING {_RETURNED}
"""  # noqa: S608  Constants of this module.
_TABLE = SumTable("hold_sums", KEY, FIGURES, texts=("account", "model", "key_id", "month"))


class OldHolds(msgspec.Struct, frozen=True, kw_only=True):
    """Holds that are over the retention."""

    before_ms: int
    """Beginning of a day. The holds have begun and ended before."""
    after: str = "hold-"
    """ID after which they are looked for."""
    limit: int

    def values(self) -> Values:
        """Return the parameters of their selection."""
        before = f"hold-{self.before_ms:011x}"
        return self.after, before, self.before_ms, self.before_ms, self.limit


class DeletedHold(msgspec.Struct, frozen=True, array_like=True):
    """Hold that was deleted."""

    id: str
    account: str
    created_ms: int
    model: str
    key_id: str
    month: str
    extends: str
    state: str
    prompt_tokens: int
    completion_tokens: int
    thinking_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    charge: int
    overrun: int


def forget_holds(owner: str, old: OldHolds) -> Transaction[Sequence[str] | None]:
    """Delete at most `old.limit` holds with their extensions, and add them to the sums.

    Return the IDs without those of extensions, in order. None: another process does this.
    Raise ConstraintError for a row that another program wrote, or sums that are too large.
    """
    # What a recovery has charged may be some seconds younger than the end of the hold.
    horizon_ms = old.before_ms + DAY_MS
    claimed = yield CLAIM, (owner, LEASE_MS, horizon_ms, horizon_ms, owner, LEASE_MS)
    if not claimed:
        return None
    deleted = _read((yield DELETE_OLD, old.values()))
    ids = sorted([hold.id for hold in deleted])
    if not ids:
        return ids
    places = ", ".join("?" * len(ids))
    extensions = f"extends <> '' AND extends IN ({places})"
    statement = f"DELETE FROM holds WHERE {extensions} RETURNING {_RETURNED}"  # noqa: S608
    deleted += _read((yield statement, tuple(ids)))
    sums = _sums_of(deleted)
    yield from _TABLE.add([(*key, *figures) for key, figures in sorted(sums.items())])
    return ids


def next_old_hold(old: OldHolds) -> Transaction[str | None]:
    """Return the ID of the first hold that `forget_holds` would delete, or None."""
    rows = yield _OLD, old.values()
    return str(rows[0][0]) if rows else None


def _read(rows: Iterable[Row]) -> list[DeletedHold]:
    try:
        return [msgspec.convert(list(row), DeletedHold) for row in rows]
    except msgspec.ValidationError as error:
        # SQLite stores any type in any column.
        raise ConstraintError(str(error)) from error


def _sums_of(holds: Iterable[DeletedHold]) -> Mapping[tuple[str, int, str, str, str], list[int]]:
    found: dict[tuple[str, int, str, str, str], list[int]] = {}
    for hold in holds:
        key = (hold.account, hold.created_ms // DAY_MS, hold.model, hold.key_id, hold.month)
        calls = [int(not hold.extends and hold.state == state) for state in STATES]
        amounts = [getattr(hold, name) for name in AMOUNTS]
        sums = found.setdefault(key, [0] * len(FIGURES))
        sums[:] = map(int.__add__, sums, (*calls, *amounts))
    return found
