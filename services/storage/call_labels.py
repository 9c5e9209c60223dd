"""Sums of the call log by end users and by tags, as statements.

They are kept as `services.storage.call_sums` keeps those by models, and apart from them. An account
has at most `LABELS_MAX` end users and tags in an hour or a day: calls of further ones are summed up
together, under an empty name. Processes that write at a time may exceed that by what one batch has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from services.storage.base import Transaction, Value
from services.storage.call_rows import CallRow
from services.storage.call_sums import (
    DAY_MS,
    HOUR_MS,
    MONEY,
    CallSums,
    Group,
    SumsQuery,
    read_group,
)
from services.storage.exact_sums import sum_columns
from services.storage.sum_table import TOKENS, SumTable

LABELS_MAX = 2000

END_USER, TAG = "end_user", "tag"
"""Kinds of labels."""

COLUMNS: Mapping[str, str] = {
    "account": "account",
    "end_user": "value",
    "tag_name": "name",
    "tag_value": "value",
}
"""Columns of the table by the names that a query groups by."""

KEY: Sequence[str] = ("span_ms", "account", "start_ms", "kind", "name", "value")
FIGURES: Sequence[str] = ("calls", "failures", *TOKENS, *MONEY)

_TABLE = SumTable("call_labels", KEY, FIGURES, texts=("account", "kind", "name", "value"))
_OF_INTERVAL = "FROM call_labels WHERE span_ms = ? AND account = ? AND start_ms = ?"
COUNT = f"SELECT count(*) {_OF_INTERVAL}"
SELECT_LABELS = f"SELECT kind, name, value {_OF_INTERVAL}"
FORGET = "DELETE FROM call_labels WHERE start_ms < ?"

_decode_tags = msgspec.json.Decoder(dict[str, str]).decode


class Interval(NamedTuple):
    """Interval of an account."""

    span_ms: int
    account: str
    start_ms: int


class Label(NamedTuple):
    """End user or tag of a call. Without name and value: those beyond `LABELS_MAX`."""

    kind: str
    name: str
    value: str


Figures: TypeAlias = tuple[int, ...]
"""Figures of a label, in the order of `FIGURES`."""

Sums: TypeAlias = Mapping[Label, Figures]


class LabelFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Labels to sum up. Empty: all names, all values."""

    kind: str
    name: str = ""
    value: str = ""


def add_labels(rows: Iterable[CallRow], dialect: str) -> Transaction[None]:
    """Add rows to the sums of their end users and tags."""
    values: list[tuple[Value, ...]] = []
    for interval, sums in sorted(_sums_of(rows).items()):
        bounded = yield from _bounded(interval, sums)
        values += [(*interval, *label, *figures) for label, figures in sorted(bounded.items())]
    if values:
        yield from _TABLE.add_batch(values, dialect)


def read_labels(query: SumsQuery, labels: LabelFilter) -> Transaction[Mapping[Group, CallSums]]:
    """Return the sums of at most `query.limit` groups, by their time and names."""
    names = [COLUMNS[name] for name in query.dimensions]
    groups = [*(["start_ms"] if query.by_interval else []), *names]
    selection = query.selection
    values: dict[str, Value] = {
        "span_ms": query.span_ms,
        "kind": labels.kind,
        "account": selection.account,
        "name": labels.name,
        "value": labels.value,
    }
    wanted = {column: value for column, value in values.items() if value}
    columns = [f"CAST(sum({name}) AS BIGINT)" for name in ("calls", "failures", *TOKENS)]
    columns.append(sum_columns(*MONEY))
    equal = " AND ".join(f"{column} = ?" for column in wanted)
    grouped = f"GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""
    statement = f"""
        SELECT {", ".join((*groups, *columns))} FROM call_labels
        WHERE {equal} AND start_ms >= ? AND start_ms < ? {grouped} LIMIT ?
    """  # noqa: S608  Names of this module.
    times = (selection.start_ms, selection.end_ms)
    rows = yield statement, (*wanted.values(), *times, query.limit)
    return dict(read_group(row, query) for row in rows if groups or row[0] is not None)


def _bounded(interval: Interval, sums: Sums) -> Transaction[Sums]:
    """Return the sums. Labels beyond `LABELS_MAX` are added up under an empty name."""
    rows = yield COUNT, interval
    free = LABELS_MAX - msgspec.convert(rows[0][0], int)
    if len(sums) <= free:
        return sums
    rows = yield SELECT_LABELS, interval
    known = {Label(*msgspec.convert(row, tuple[str, str, str])) for row in rows}
    bounded: dict[Label, Figures] = {}
    for label, figures in sorted(sums.items()):
        shown = label
        if label not in known:
            shown = label if free > 0 else Label(label.kind, "", "")
            free -= 1
        _add(bounded, shown, figures)
    return bounded


def _sums_of(rows: Iterable[CallRow]) -> Mapping[Interval, Sums]:
    hours: dict[Interval, dict[Label, Figures]] = {}
    for row in rows:
        if row.end_user or row.tags:
            interval = Interval(HOUR_MS, row.account, row.at_ms - row.at_ms % HOUR_MS)
            sums = hours.setdefault(interval, {})
            figures = _figures(row)
            for label in _labels_of(row):
                _add(sums, label, figures)
    found: dict[Interval, dict[Label, Figures]] = dict(hours)
    for hour, sums in hours.items():
        day = Interval(DAY_MS, hour.account, hour.start_ms - hour.start_ms % DAY_MS)
        for label, figures in sums.items():
            _add(found.setdefault(day, {}), label, figures)
    return found


def _figures(row: CallRow) -> Figures:
    tokens = row.prompt_tokens, row.completion_tokens, row.thinking_tokens
    cached = row.cache_read_tokens, row.cache_write_tokens
    return 1, int(bool(row.reason)), *tokens, *cached, row.charge, row.cost


def _add(sums: dict[Label, Figures], label: Label, figures: Figures) -> None:
    before = sums.get(label)
    sums[label] = figures if before is None else tuple(map(int.__add__, before, figures))


def _labels_of(row: CallRow) -> Iterable[Label]:
    if row.end_user:
        yield Label(END_USER, "", row.end_user)
    if row.tags:
        for name, value in _decode_tags(row.tags).items():
            yield Label(TAG, name, value)
