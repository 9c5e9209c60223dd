"""Rows of the call log, as statements: one row for each call that has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec
from msgspec.structs import replace

from services.storage.base import Row, Statement, Transaction, Value

CallPosition = tuple[int, str]
"""Time and ID of a row: the order of the log."""


class CallRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Row of a call. The fields are the columns of the table, in its order."""

    at_ms: int
    """Time at which the call began: that of its hold, where it has one."""
    id: str
    """Unique. It begins with the time, so that it leads to the row."""
    request_id: str
    completion_id: str
    """ID of the answer. Empty: there was none."""
    account: str
    key_id: str
    surface: str
    """API that was called."""
    streamed: int
    """1: the answer was requested as a stream."""
    model: str
    """Requested model, by the name of its price. Empty: it is unknown."""
    served_model: str
    """Public name of the model that answered."""
    channel: str
    """Channel of the last attempt."""
    attempts: str
    """JSON array of the attempts."""
    attempt_count: int
    call_end: str
    """One of `services.telemetry.calls.ENDS`."""
    reason: str
    """Reason of the failure. Empty: the call did not fail."""
    http_status: int
    ttft_ms: int | None
    total_ms: int
    prompt_tokens: int
    completion_tokens: int
    thinking_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    source: str
    """Source of the counts."""
    flags: str
    """Corrections of the provider's usage, separated by commas."""
    charge: int
    """In nano-USD, as of the hold."""
    cost: int
    """Price of the usage before the markup, in nano-USD."""
    hold: int
    """Amount of the hold, in nano-USD."""
    hold_id: str
    """ID of the hold. Empty: there was none."""
    end_user: str
    session: str
    tags: str
    """JSON object of the caller's labels. Empty: there are none."""
    trace_id: str
    notes: str
    """JSON array of [parameter, action]. Empty: there are none."""
    note_count: int


COLUMNS: Sequence[str] = CallRow.__struct_fields__

_NAMES = ", ".join(COLUMNS)
_TYPES = {
    field.name: "TEXT" if field.type is str else "BIGINT"
    for field in msgspec.structs.fields(CallRow)
}
_ROW = f"({', '.join('?' * len(COLUMNS))})"
INSERTS: Mapping[int, str] = {
    size: f"INSERT INTO calls ({_NAMES}) VALUES {', '.join([_ROW] * size)}"  # noqa: S608
    for size in (64, 8, 1)
}
"""Statements by the number of their rows. In SQLite each statement takes Python's lock once more,
which the event loop holds most of the time."""
INSERT_JSON = f"""
    INSERT INTO calls ({_NAMES})
    SELECT {_NAMES} FROM json_to_recordset(CAST(CAST(? AS TEXT) AS JSON))
        AS row ({", ".join(f"{name} {kind}" for name, kind in _TYPES.items())})
"""  # noqa: S608  In PostgreSQL one statement inserts a batch.
SELECT = f"SELECT {_NAMES} FROM calls WHERE "  # noqa: S608

NEWEST_FIRST = " ORDER BY at_ms DESC, id DESC LIMIT ?"
OLDEST_FIRST = " ORDER BY at_ms, id LIMIT ?"


class CallSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that have all the values that are set. An empty text and 0 select all."""

    start_ms: int
    end_ms: int
    """Exclusive."""
    account: str = ""
    key_id: str = ""
    model: str = ""
    channel: str = ""
    call_end: str = ""
    session: str = ""
    end_user: str = ""
    request_id: str = ""
    completion_id: str = ""
    min_charge: int = 0

    def conditions(self) -> tuple[str, tuple[Value, ...]]:
        """Return the condition on rows, and its values. Times come first."""
        condition, values = "at_ms >= ? AND at_ms < ?", [self.start_ms, self.end_ms]
        named, equal = self.equalities()
        if self.min_charge:
            return f"{condition}{named} AND charge >= ?", (*values, *equal, self.min_charge)
        return condition + named, (*values, *equal)

    def equalities(self) -> tuple[str, tuple[Value, ...]]:
        """Return ` AND column = ?` for each name that is set, and the names."""
        columns = [name for name in EQUALITIES if getattr(self, name)]
        values = [getattr(self, name) for name in columns]
        # The second comparison tells SQLite that a partial index has the rows.
        texts = (f" AND {name} = ? AND {name} <> ''" for name in columns)
        return "".join(texts), tuple(values)


EQUALITIES: Sequence[str] = (
    *("account", "key_id", "model", "channel", "call_end", "session", "end_user", "request_id"),
    "completion_id",
)
"""Columns that a selection compares with a text."""


def insert_calls(rows: Sequence[CallRow], dialect: str) -> Transaction[None]:
    """Insert rows, in the way that is fast in the database `sqlite` or `postgres`."""
    if dialect == "postgres":
        yield INSERT_JSON, (msgspec.json.encode(rows).decode(),)
        return
    begin = 0
    for size, statement in INSERTS.items():
        while len(rows) - begin >= size:
            some = rows[begin : begin + size]
            yield statement, tuple(chain.from_iterable(map(msgspec.structs.astuple, some)))
            begin += size


def list_calls(
    selection: CallSelection, limit: int, before: CallPosition | None
) -> Transaction[Sequence[CallRow]]:
    """Return at most `limit` calls, newest first, that are older than the position `before`."""
    if before is not None:
        # The end tells PostgreSQL which partitions it need not read. With two ends it would read
        # a day from the later one on.
        selection = replace(selection, end_ms=min(selection.end_ms, before[0] + 1))
    condition, values = selection.conditions()
    if before is not None:
        condition, values = f"{condition} AND (at_ms, id) < (?, ?)", (*values, *before)
    return (yield from _read(condition, NEWEST_FIRST, (*values, limit)))


def calls_after(
    selection: CallSelection, limit: int, after: CallPosition | None
) -> Transaction[Sequence[CallRow]]:
    """Return at most `limit` calls, oldest first, that come after the position `after`."""
    if after is not None:
        selection = replace(selection, start_ms=max(selection.start_ms, after[0]))
    condition, values = selection.conditions()
    if after is not None:
        condition, values = f"{condition} AND (at_ms, id) > (?, ?)", (*values, *after)
    return (yield from _read(condition, OLDEST_FIRST, (*values, limit)))


def call_by_position(at_ms: int, call_id: str, account: str) -> Transaction[CallRow | None]:
    """Return a call of the account, of any account if the name is empty; None if not found."""
    condition = "at_ms = ? AND id = ?"
    values: tuple[Value, ...] = (at_ms, call_id)
    if account:
        condition, values = f"{condition} AND account = ?", (*values, account)
    found = yield from _read(condition, NEWEST_FIRST, (*values, 1))
    return found[0] if found else None


def _read(condition: str, order: str, values: tuple[Value, ...]) -> Transaction[Sequence[CallRow]]:
    statement: Statement = (SELECT + condition + order, values)
    rows = yield statement
    return [_row(row) for row in rows]


def _row(row: Row) -> CallRow:
    return msgspec.convert(dict(zip(COLUMNS, row, strict=True)), CallRow)
