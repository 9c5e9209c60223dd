"""Stores of the call log: rows in time order, sums of any intervals, and their retention."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path

import asyncpg
import msgspec
import pytest

from services.call_log.call_messages import group_message
from services.call_log.call_queue import row_of
from services.call_log.call_reader import CallLogReader
from services.call_log.call_scope import CallScope
from services.errors import Failure
from services.storage import call_labels
from services.storage.base import Transaction
from services.storage.call_labels import END_USER, TAG, LabelFilter
from services.storage.call_rows import CallRow, CallSelection, calls_after
from services.storage.call_schema import CALL_LOG
from services.storage.call_store import CallBatch, CallStore
from services.storage.call_sums import BOUNDS_MS, DAY_MS, SumsQuery
from services.storage.opening import call_store
from services.storage.schema import Schema
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


USERS = LabelFilter(kind=END_USER)
TAGS = LabelFilter(kind=TAG)


def labelled(at_ms: int, user: str, tags: Mapping[str, str], charge: int) -> CallRow:
    """Return a row of a call with an end user and tags."""
    text = msgspec.json.encode(tags).decode() if tags else ""
    return row(at_ms, end_user=user, tags=text, charge=charge)


async def charges(
    store: CallStore, labels: LabelFilter, *dimensions: str, **values: object
) -> Mapping[tuple[str, ...], tuple[int, int]]:
    """Return the calls and charges of groups of labels."""
    reader = CallLogReader(store, nothing)
    found = await reader.sums_of_labels(query(dimensions=dimensions, **values), labels)
    return {names: (sums.calls, sums.money[0]) for (_, names), sums in found.items()}


async def test_sums_of_labels_are_those_of_their_rows(store: CallStore) -> None:
    """A call counts for its end user and for each of its tags, over months and batches."""
    await write(
        store,
        labelled(DECEMBER_MS - DAY_MS, "ann", {"team": "a", "stage": "x"}, 2**62),
        labelled(DECEMBER_MS, "ann", {"team": "b"}, 2**62),
        labelled(DECEMBER_MS, "", {}, 4),
    )
    await write(store, labelled(DECEMBER_MS, "bob", {"team": "b"}, 8))

    assert await charges(store, USERS, "end_user") == {("ann",): (2, 2**63), ("bob",): (1, 8)}
    assert await charges(store, TAGS, "tag_name", "tag_value") == {
        ("stage", "x"): (1, 2**62), ("team", "a"): (1, 2**62), ("team", "b"): (2, 2**62 + 8),
    }  # fmt: skip
    of_team = LabelFilter(kind=TAG, name="team")
    assert await charges(store, of_team) == {(): (3, 2**63 + 8)}
    assert await charges(store, of_team, by_interval=True) == {(): (2, 2**62 + 8)}
    of_ann = LabelFilter(kind=END_USER, value="ann")
    assert await charges(store, of_ann, "account") == {("acme",): (2, 2**63)}
    elsewhere = msgspec.structs.replace(ALL, account="other")
    assert await charges(store, USERS, "end_user", selection=elsewhere) == {}


async def test_labels_that_are_too_many_are_summed_up_together(
    store: CallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account's names in an interval are bounded; none of its calls is lost from the sums."""
    monkeypatch.setattr(call_labels, "LABELS_MAX", 5)
    await write(store, labelled(DECEMBER_MS, "known", {}, 1))
    for batch in range(3):
        rows = [labelled(DECEMBER_MS, f"u{batch}-{each}", {"t": f"{each}"}, 1) for each in range(4)]
        await write(store, labelled(DECEMBER_MS, "known", {}, 1), *rows)
    await write(store, row(DECEMBER_MS, account="other", end_user="else", charge=1))
    await write(store, labelled(DECEMBER_MS + DAY_MS, "next day", {}, 1))

    found = await charges(store, USERS, "end_user")

    assert sum(calls for calls, _ in found.values()) == 18
    assert found[("known",)] == (4, 4)
    assert {("else",), ("next day",)} < found.keys()
    tags = await charges(store, TAGS, "tag_name", "tag_value")
    assert sum(calls for calls, _ in tags.values()) == 12
    assert len(found) + len(tags) <= 5 + 2 + 2


async def test_files_of_an_earlier_version_are_migrated(tmp_path: Path) -> None:
    """A month that an earlier version has written can be read, with and without new rows."""
    earlier = Schema(CALL_LOG.migrations[:1], CALL_LOG.version_table)
    folder = tmp_path / "calls"
    folder.mkdir()
    for month in ("2026-11", "2026-12"):
        with closing(sqlite3.connect(folder / f"calls-{month}.db")) as file:
            for statement in earlier.pending(0, "sqlite")[0]:
                file.execute(statement)
            file.execute("PRAGMA user_version = 1")
    store = call_store(tmp_path, "")

    assert await charges(store, USERS, "end_user") == {}
    await write(store, labelled(DECEMBER_MS, "ann", {}, 1))
    assert await charges(store, USERS, "end_user") == {("ann",): (1, 1)}
    await store.close()


async def test_what_is_over_the_retention_is_dropped(store: CallStore, tmp_path: Path) -> None:
    """Whole days, or whole months of files, go with their sums; later ones stay."""
    days = (-62, -31, 0, 1)
    await write(store, *[row(DECEMBER_MS + day * DAY_MS, end_user="ann") for day in days])

    await store.forget(DECEMBER_MS)

    assert await times(store) == [1, 0]
    whole = await CallLogReader(store, nothing).sums(query())
    assert [sums.calls for sums in whole.values()] == [2]
    assert await charges(store, USERS) == {(): (2, 10)}
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


async def test_a_partition_that_was_dropped_is_created_again(postgres_url: str) -> None:
    """Another process, or a person, may drop one that this process knows."""
    store = call_store(Path(), postgres_url)
    await write(store, row(DECEMBER_MS))
    admin = await asyncpg.connect(postgres_url)
    await admin.execute("DROP TABLE calls_20261201")
    await admin.close()

    await write(store, row(DECEMBER_MS + 1))

    rows = await CallLogReader(store, nothing).page(ALL, 10, None)
    await store.close()
    assert [each.at_ms for each in rows] == [DECEMBER_MS + 1]


async def test_rows_are_written_while_reads_take_long(postgres_url: str) -> None:
    """However many there are: one connection is not for reads."""
    store = call_store(Path(), postgres_url)
    await write(store, row(DECEMBER_MS))
    (segment,) = await store.segments(0, 2**53)
    other = await asyncpg.connect(postgres_url)
    await other.execute("SELECT pg_advisory_lock(7)")

    def long_read() -> Transaction[None]:
        yield "SELECT pg_advisory_xact_lock(?)", (7,)

    reads = [asyncio.create_task(segment.read(long_read)) for _ in range(10)]
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
    while not await other.fetchval(waiting):
        continue
    await write(store, row(DECEMBER_MS + 1))

    rows = await other.fetchval("SELECT count(*) FROM calls")
    await other.execute("SELECT pg_advisory_unlock(7)")
    await asyncio.gather(*reads)
    await other.close()
    await store.close()
    assert rows == 2


async def test_a_day_goes_together_with_its_sums(postgres_url: str) -> None:
    """While its sums cannot be deleted, its rows stay: at no time do they differ."""
    store = call_store(Path(), postgres_url)
    await write(store, row(DECEMBER_MS), row(DECEMBER_MS + 2 * DAY_MS))
    other = await asyncpg.connect(postgres_url)
    async with other.transaction():
        await other.execute("SELECT 1 FROM call_sums FOR UPDATE")
        forgetting = asyncio.create_task(store.forget(DECEMBER_MS + DAY_MS))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        while not await other.fetchval(waiting):
            continue
        assert await times(store) == [2, 0]
    await other.close()

    await forgetting

    assert await times(store) == [2]
    assert [
        sums.calls for sums in (await CallLogReader(store, nothing).sums(query())).values()
    ] == [1]
    await store.close()


async def test_a_month_that_is_deleted_while_it_is_read_is_empty(tmp_path: Path) -> None:
    """An export goes on with the later months."""
    store = call_store(tmp_path, "")
    await write(store, row(DECEMBER_MS - 40 * DAY_MS), row(DECEMBER_MS))
    new, old = await store.segments(0, 2**53)

    await store.forget(DECEMBER_MS)

    assert list(await old.read(calls_after, ALL, 10, None)) == []
    assert len(await new.read(calls_after, ALL, 10, None)) == 1
    await store.close()


async def test_files_that_are_no_month_are_left_alone(tmp_path: Path) -> None:
    """Neither reads nor the retention look at files of other names beside the months."""
    store = call_store(tmp_path, "")
    await write(store, row(DECEMBER_MS))
    others = ("calls-2026-13.db", "calls-0000-01.db", "calls-2026-12.db.copy", "notes.txt")
    for name in others:
        (tmp_path / "calls" / name).write_text("not a database")

    await store.forget(DECEMBER_MS + 400 * DAY_MS)
    await write(store, row(DECEMBER_MS + 1))

    assert await times(store) == [0]
    await store.close()
    assert {path.name for path in (tmp_path / "calls").iterdir()} >= set(others)


async def test_a_month_that_cannot_be_read_is_an_outage_of_its_rows_alone(tmp_path: Path) -> None:
    """Pages of other months, and writes, go on; what needs the month fails."""
    store = call_store(tmp_path, "")
    await write(store, row(DECEMBER_MS - 40 * DAY_MS), row(DECEMBER_MS), row(DECEMBER_MS + 1))
    (tmp_path / "calls" / "calls-2026-10.db").write_bytes(b"not a database" * 1000)
    reader = CallLogReader(store, nothing)

    await write(store, row(DECEMBER_MS + 2))

    assert len(await reader.page(ALL, 3, None)) == 3
    with pytest.raises(Failure, match="state"):
        await reader.page(ALL, 4, None)
    with pytest.raises(Failure, match="state"):
        _ = [part async for part in reader.export(ALL)]
    await store.close()


def plan_mode() -> Transaction[str]:
    """Return how the server plans the statements of a transaction."""
    rows = yield "SELECT current_setting('plan_cache_mode')", ()
    return str(rows[0][0])


async def test_reads_on_a_server_are_planned_for_their_values(postgres_url: str) -> None:
    """A plan for any values reads days of rows where few calls have the least charge."""
    store = call_store(Path(), postgres_url)
    (segment,) = await store.segments(0, 1)

    assert await segment.read(plan_mode) == "force_custom_plan"

    await store.close()
