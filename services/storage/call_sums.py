"""Sums of the call log by hours and by days, as statements.

The batch that writes rows adds them to the sums, so charts read no rows. Durations are counted in
the buckets of a histogram with fixed bounds, so sums of any intervals can be added up. Besides the
sums by account and key there are those over all of them, under empty names, which no call has.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Self

import msgspec

from services.storage.base import Row, Transaction, Value
from services.storage.call_rows import CallRow, CallSelection
from services.storage.exact_sums import read_sums, sum_columns
from services.storage.sum_table import TOKENS, SumTable

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BOUNDS_MS: Sequence[int] = tuple(round(8 * 2 ** (k / 2)) for k in range(31))
"""Upper bounds of the buckets: 8 ms to 262 s by a factor of √2. The last bucket has none."""

BUCKETS = len(BOUNDS_MS) + 1

DIMENSIONS: Sequence[str] = ("account", "key_id", "model", "channel", "call_end")
MONEY: Sequence[str] = ("charge", "cost")
TTFT: Sequence[str] = tuple(f"ttft_{number}" for number in range(BUCKETS))
TOTAL: Sequence[str] = tuple(f"total_{number}" for number in range(BUCKETS))

KEY: Sequence[str] = ("span_ms", "start_ms", *DIMENSIONS)
FIGURES: Sequence[str] = ("calls", "failures", *TOKENS, *MONEY, *TTFT, *TOTAL)

_TABLE = SumTable("call_sums", KEY, FIGURES, texts=DIMENSIONS)

_READ_TOKENS, _READ_MONEY = list(map(attrgetter, TOKENS)), list(map(attrgetter, MONEY))
_read_names = attrgetter(*DIMENSIONS)


class CallSums(msgspec.Struct, kw_only=True):
    """Sums of the calls of one group."""

    calls: int = 0
    failures: int = 0
    """Calls that have a reason."""
    tokens: list[int] = msgspec.field(default_factory=lambda: [0] * len(TOKENS))
    """In the order of `TOKENS`."""
    money: list[int] = msgspec.field(default_factory=lambda: [0] * len(MONEY))
    """Charge and cost, in nano-USD."""
    ttft: list[int] = msgspec.field(default_factory=lambda: [0] * BUCKETS)
    """Number of calls by the bucket of the time to their answer."""
    total: list[int] = msgspec.field(default_factory=lambda: [0] * BUCKETS)
    """Number of calls by the bucket of their duration."""

    @classmethod
    def of(cls, rows: Sequence[CallRow]) -> Self:
        """Return the sums of calls."""
        return cls(
            calls=len(rows),
            failures=len([row for row in rows if row.reason]),
            tokens=[sum(map(read, rows)) for read in _READ_TOKENS],
            money=[sum(map(read, rows)) for read in _READ_MONEY],
            ttft=_histogram([row.ttft_ms for row in rows if row.ttft_ms is not None]),
            total=_histogram([row.total_ms for row in rows]),
        )

    def add(self, other: CallSums) -> None:
        """Add the sums of other calls."""
        self.calls += other.calls
        self.failures += other.failures
        for own, more in (
            (self.tokens, other.tokens),
            (self.money, other.money),
            (self.ttft, other.ttft),
            (self.total, other.total),
        ):
            own[:] = map(int.__add__, own, more)

    def figures(self) -> tuple[int, ...]:
        """Return the figures in the order of their columns."""
        tokens_and_money = (*self.tokens, *self.money)
        return (self.calls, self.failures, *tokens_and_money, *self.ttft, *self.total)


class SumsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Sums to read."""

    selection: CallSelection
    """Calls, by times that are multiples of `span_ms`, and by names of `DIMENSIONS`."""
    span_ms: int
    """Length of the intervals whose sums are added up."""
    by_interval: bool
    """Whether each interval has groups of its own."""
    dimensions: Sequence[str]
    """Names to group by, of `DIMENSIONS`."""
    durations: bool
    """Whether the histograms are wanted."""
    limit: int


Group = tuple[int, tuple[str, ...]]
"""Start of an interval, 0 without intervals, and the names of a group."""


def add_calls(rows: Iterable[CallRow], dialect: str) -> Transaction[None]:
    """Add rows to the sums of their hours and days."""
    # In one order in every process, so that no two wait for each other.
    found = sorted(_sums_of(rows).items())
    values: list[tuple[Value, ...]] = [(*key, *sums.figures()) for key, sums in found]
    yield from _TABLE.add_batch(values, dialect)


def read_groups(query: SumsQuery) -> Transaction[Mapping[Group, CallSums]]:
    """Return the sums of at most `limit` groups, by their time and names."""
    groups = [*(["start_ms"] if query.by_interval else []), *query.dimensions]
    columns = [f"CAST(sum({name}) AS BIGINT)" for name in ("calls", "failures", *TOKENS)]
    columns.append(sum_columns(*MONEY))
    if query.durations:
        columns += [f"CAST(sum({name}) AS BIGINT)" for name in (*TTFT, *TOTAL)]
    selection = query.selection
    equal, names = selection.equalities()
    level = _level(selection, groups)
    grouped = f"GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""
    statement = f"""
        SELECT {", ".join((*groups, *columns))} FROM call_sums
        WHERE span_ms = ? AND start_ms >= ? AND start_ms < ? AND {level}{equal} {grouped} LIMIT ?
    """  # noqa: S608  Names of this module.
    times = (query.span_ms, selection.start_ms, selection.end_ms)
    rows = yield statement, (*times, *names, query.limit)
    return dict(read_group(row, query) for row in rows if groups or row[0] is not None)


def matching_days(selection: CallSelection) -> Transaction[tuple[int, int] | None]:
    """Return the times from the first to the last day with calls of the names of `DIMENSIONS`.

    None: there are no such calls. The rows of a day are written with its sums.
    """
    names = {name: getattr(selection, name) for name in DIMENSIONS}
    by_names = CallSelection(start_ms=selection.start_ms, end_ms=selection.end_ms, **names)
    equal, values = by_names.equalities()
    statement = f"""
        SELECT min(start_ms), max(start_ms) FROM call_sums
        WHERE span_ms = {DAY_MS} AND start_ms >= ? AND start_ms < ?
            AND {_level(by_names, ())}{equal}
    """  # noqa: S608  Names of this module.
    first_ms = selection.start_ms - selection.start_ms % DAY_MS
    ((first, last),) = yield statement, (first_ms, selection.end_ms, *values)
    if first is None:
        return None
    return msgspec.convert(first, int), msgspec.convert(last, int) + DAY_MS


def _level(selection: CallSelection, groups: Sequence[str]) -> str:
    """Return the condition for the sums over all accounts, or else for those of each."""
    apart = selection.account or selection.key_id or {"account", "key_id"} & set(groups)
    return "account <> ''" if apart else "account = ''"


def forget_sums(before_ms: int) -> Transaction[int]:
    """Delete the sums of intervals that began before a time. Return how many there were."""
    deleted = yield "DELETE FROM call_sums WHERE start_ms < ?", (before_ms,)
    return len(deleted)


def _sums_of(rows: Iterable[CallRow]) -> Mapping[tuple[Value, ...], CallSums]:
    hours: defaultdict[tuple[int, tuple[str, ...]], list[CallRow]] = defaultdict(list)
    for row in rows:
        hours[row.at_ms - row.at_ms % HOUR_MS, _read_names(row)].append(row)
    found: dict[tuple[Value, ...], CallSums] = {}
    for (hour, group), alike in hours.items():
        found[HOUR_MS, hour, *group] = sums = CallSums.of(alike)
        day = hour - hour % DAY_MS
        totals = ("", "", *group[2:])
        more: Sequence[tuple[Value, ...]] = (
            (DAY_MS, day, *group),
            (HOUR_MS, hour, *totals),
            (DAY_MS, day, *totals),
        )
        for name in more:
            found.setdefault(name, CallSums()).add(sums)
    return found


def _histogram(times_ms: Iterable[int]) -> list[int]:
    counts = [0] * BUCKETS
    for time_ms in times_ms:
        counts[bisect_left(BOUNDS_MS, time_ms)] += 1
    return counts


def read_group(row: Row, query: SumsQuery) -> tuple[Group, CallSums]:
    """Return the group of a row of sums, and its sums."""
    columns = list(row)
    start_ms = columns.pop(0) if query.by_interval else 0
    names = tuple(columns.pop(0) for _ in query.dimensions)
    group = msgspec.convert((start_ms, names), Group)
    plain = msgspec.convert(columns[: 2 + len(TOKENS)], list[int])
    money = columns[len(plain) : len(plain) + 2 * len(MONEY)]
    buckets = msgspec.convert(columns[len(plain) + len(money) :], list[int])
    sums = CallSums(calls=plain[0], failures=plain[1], tokens=plain[2:], money=read_sums(money))
    if buckets:
        sums.ttft, sums.total = buckets[:BUCKETS], buckets[BUCKETS:]
    return group, sums
