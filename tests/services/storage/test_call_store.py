"""Stores of the call log: rows in time order, sums of any intervals, and their retention."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path

import msgspec
import pytest

from services.call_log.call_messages import group_message
from services.call_log.call_reader import CallLogReader
from services.call_log.call_scope import CallScope
from services.call_log.recorded_call import row_of
from services.errors import Failure
from services.storage.call_rows import CallRow, CallSelection
from services.storage.call_store import CallBatch, CallStore
from services.storage.call_sums import BOUNDS_MS, DAY_MS, SumsQuery
from services.storage.opening import call_store
from tests.stand.call_records import ended_record, settled_record

DECEMBER_MS = round(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)
ALL = CallSelection(start_ms=0, end_ms=2**53)

numbers = count(1)


async def nothing() -> None:
    """Wait for no row."""


@pytest.fixture
async def store(tmp_path: Path, each_database_url: str) -> AsyncIterator[CallStore]:
    """An empty store of each kind."""
    opened = call_store(tmp_path, each_database_url)
    yield opened
    await opened.close()


def row(at_ms: int, **values: object) -> CallRow:
    """Return a row of a call at a time."""
    record = settled_record(1, "hold-1", 5)
    record.facts.hold_ms = at_ms
    return msgspec.structs.replace(row_of(record, 0.0), **values)


async def write(store: CallStore, *rows: CallRow) -> None:
    """Write rows in a batch."""
    batch = CallBatch(writer="w", number=next(numbers), at_ms=DECEMBER_MS, rows=rows)
    await store.write(batch)


async def times(store: CallStore) -> Sequence[int]:
    """Return the times of all rows, newest first, from December on."""
    rows = await CallLogReader(store, nothing).page(ALL, 1000, None)
    return [(each.at_ms - DECEMBER_MS) // DAY_MS for each in rows]


def files_of(state: Path) -> set[str]:
    """Return the names of the files of months."""
    return {path.name for path in state.glob("calls/*.db")}


def query(**values: object) -> SumsQuery:
    """Return a query of all calls by days."""
    asked = SumsQuery(
        selection=ALL, span_ms=DAY_MS, by_interval=False, dimensions=(), durations=True, limit=100
    )
    return msgspec.structs.replace(asked, **values)


async def test_lists_cross_months(store: CallStore) -> None:
    """Rows of a batch go to their days and months, and one list has all of them in order."""
    await write(store, *[row(DECEMBER_MS + day * DAY_MS) for day in (3, -40, 0, -1)])

    assert await times(store) == [3, 0, -1, -40]
    reader = CallLogReader(store, nothing)
    first = await reader.page(ALL, 2, None)
    rest = await reader.page(ALL, 10, (first[-1].at_ms, first[-1].id))
    assert [each.at_ms for each in rest] == [DECEMBER_MS - DAY_MS, DECEMBER_MS - 40 * DAY_MS]
    exported = [each.at_ms async for part in reader.export(ALL) for each in part]
    assert exported == sorted(exported)
    assert len(exported) == 4
    found = await reader.call(first[0].id, "acme")
    assert found == first[0]
    assert await reader.call(first[0].id, "other") is None


async def test_sums_add_up_over_months_and_groups(store: CallStore) -> None:
    """The sums over all accounts are those of the accounts, in every month."""
    rows = [
        row(DECEMBER_MS - DAY_MS, account="acme", charge=7),
        row(DECEMBER_MS, account="acme", charge=11, model="other"),
        row(DECEMBER_MS, account="else", charge=2**62),
    ]
    await write(store, *rows)
    await write(store, row(DECEMBER_MS, account="else", charge=2**61))
    reader = CallLogReader(store, nothing)

    whole = await reader.sums(query())
    by_account = await reader.sums(query(dimensions=("account",)))
    by_day = await reader.sums(query(by_interval=True, dimensions=("model",)))

    assert [sums.calls for sums in whole.values()] == [4]
    total = 18 + 2**62 + 2**61
    for found in (whole, by_account, by_day):
        assert sum(sums.money[0] for sums in found.values()) == total
    assert {names for _, names in by_account} == {("acme",), ("else",)}
    assert [start for start, _ in by_day] == [DECEMBER_MS - DAY_MS, DECEMBER_MS, DECEMBER_MS]


async def test_quantiles_bound_the_durations(store: CallStore) -> None:
    """A quantile is above the exact value, by less than the factor of the buckets."""
    exact = [10, 100, 1_000, 10_000, 100_000]
    await write(store, *[row(DECEMBER_MS, total_ms=each) for each in exact for _ in range(20)])

    ((group, sums),) = (await CallLogReader(store, nothing).sums(query())).items()
    message = group_message(group, sums, (), CallScope())

    p50 = message.total_durations.p50.ToMilliseconds()
    p95 = message.total_durations.p95.ToMilliseconds()
    assert 1_000 <= p50 < 1_420
    assert 100_000 <= p95 < 142_000
    assert all(high / low < 1.5 for low, high in pairwise(BOUNDS_MS))


async def test_what_is_over_the_retention_is_dropped(store: CallStore, tmp_path: Path) -> None:
    """Whole days, or whole months of files, go with their sums; later ones stay."""
    await write(store, *[row(DECEMBER_MS + day * DAY_MS) for day in (-62, -31, 0, 1)])

    await store.forget(DECEMBER_MS)

    assert await times(store) == [1, 0]
    whole = await CallLogReader(store, nothing).sums(query())
    assert [sums.calls for sums in whole.values()] == [2]
    assert files_of(tmp_path) <= {"calls-2026-12.db"}
    await write(store, row(DECEMBER_MS - 31 * DAY_MS))
    assert await times(store) == [1, 0, -31]


async def test_texts_of_callers_can_be_stored(store: CallStore) -> None:
    """Control characters and lone surrogates of a caller's names are replaced."""
    record = ended_record()
    record.facts.end_user = "a\x00b\ud800c\u2028"
    made = row_of(record, DECEMBER_MS / 1000)

    await write(store, made)

    (stored,) = await CallLogReader(store, nothing).page(ALL, 10, None)
    assert stored == made
    assert stored.end_user == "a?b?c?"


async def test_a_server_that_is_away_fails_each_use_alone(tmp_path: Path) -> None:
    """A store whose server does not answer can be made, and used again later."""
    store = call_store(tmp_path, "postgresql://nowhere@127.0.0.1:1/log")

    for _ in range(2):
        with pytest.raises(Failure, match="state"):
            await store.segments(0, 1)
    await store.close()
