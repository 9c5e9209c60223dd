"""Queue of the call log: it never waits, is bounded, and writes each row once."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.call_log.call_queue import CallQueue
from services.clock import SystemClock
from services.common.plain_metrics import PlainMetrics
from services.storage.call_charges import logged_days, sums_of_day
from services.storage.call_rows import CallRow, CallSelection, list_calls
from services.storage.call_store import CallBatch, CallStore
from services.storage.sqlite_calls import SqliteCalls
from services.telemetry.calls import CallRecord
from tests.stand.call_records import ended_record, settled_record

EVERYTHING = CallSelection(start_ms=0, end_ms=2**53)


async def settled() -> None:
    """Wait for nothing: the books have all holds."""


@asynccontextmanager
async def running(store: CallStore, *, calls_max: int = 100) -> AsyncIterator[CallQueue]:
    """A queue whose task runs."""
    queue = CallQueue(store, SystemClock(), settled, PlainMetrics("test"), calls_max=calls_max)
    task = asyncio.create_task(queue.run())
    yield queue
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def put(queue: CallQueue, record: CallRecord) -> None:
    """End a call, whose record the queue gets."""
    queue.ended.add(record, at_once=False)


async def rows(store: CallStore) -> Sequence[CallRow]:
    """All rows of a store."""
    found: list[CallRow] = []
    for segment in await store.segments(0, 2**53):
        found += await segment.read(list_calls, EVERYTHING, 1000, None)
    return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteCalls]:
    """An empty log in files."""
    opened = SqliteCalls(tmp_path)
    yield opened
    await opened.close()


async def test_rows_are_written_without_being_asked_for(store: SqliteCalls) -> None:
    """A row is there within the interval."""
    async with running(store) as queue:
        put(queue, ended_record())
        while not (found := await rows(store)):  # noqa: ASYNC110 - no flush may be asked for here
            await asyncio.sleep(0.01)

    (row,) = found
    assert (row.request_id, row.reason, row.total_ms) == ("req-0", "RATE_LIMIT_EXCEEDED", 250)


async def test_calls_without_an_accepted_key_have_no_row(store: SqliteCalls) -> None:
    """Guesses of keys do not fill the log."""
    async with running(store) as queue:
        put(queue, ended_record(1, account=""))
        put(queue, ended_record(2))
        await queue.flush()

    assert [row.request_id for row in await rows(store)] == ["req-2"]


async def test_a_locked_file_bounds_the_queue(store: SqliteCalls, tmp_path: Path) -> None:
    """While the file cannot be written, excess calls get no row; later ones do."""
    async with running(store, calls_max=5) as queue:
        put(queue, ended_record(0))
        await queue.flush()
        (file,) = (tmp_path / "calls").glob("*.db")
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for number in range(1, 20):
                put(queue, ended_record(number))
            assert queue.depth == 5
            assert queue.dropped[("full",)].value == 14
            await asyncio.sleep(0.1)
            assert queue.depth == 5
            other.execute("ROLLBACK")
        await queue.flush()
        put(queue, ended_record(20))
        await queue.flush()

    written = {row.request_id for row in await rows(store)}
    assert written == {*(f"req-{number}" for number in range(6)), "req-20"}


async def test_metrics_have_all_calls_that_have_ended(store: SqliteCalls) -> None:
    """Those that wait and those that were dropped, also before the task has seen them."""
    registry = CollectorRegistry()
    metrics = PlainMetrics("test", registry)
    queue = CallQueue(store, SystemClock(), settled, metrics, calls_max=1)
    for number in range(3):
        put(queue, ended_record(number))

    text = generate_latest(registry).decode()
    assert "test_call_log_waiting_calls 1.0" in text
    assert 'test_call_log_dropped_total{reason="full"} 2.0' in text


async def test_a_full_disk_is_left_to_the_books(tmp_path: Path) -> None:
    """Where little of the disk is left nothing is written, and calls only wait for their rows."""
    store = SqliteCalls(tmp_path, spare_bytes=shutil.disk_usage(tmp_path).total)
    async with running(store, calls_max=2) as queue:
        for number in range(3):
            put(queue, ended_record(number))
        await asyncio.sleep(0.7)

        assert queue.depth == 2
        assert queue.dropped[("full",)].value == 1
        assert await rows(store) == []
    await store.close()


async def test_a_call_that_is_read_on_gets_its_row_later(store: SqliteCalls) -> None:
    """The row has how the call ended for its caller, and what it cost in the end."""
    record = ended_record(1, end="client_gone", reason="", code="CANCELLED")
    record.facts.hold_id = "hold-1"
    async with running(store) as queue:
        put(queue, record)
        assert queue.depth == 0
        late = settled_record(1, "hold-1", 70, facts=record.facts, ended_at=9.0)
        late.end = ""
        queue.put_late(late)
        await queue.flush()

    (row,) = await rows(store)
    assert (row.call_end, row.total_ms, row.charge) == ("client_gone", 250, 70)


async def test_rows_wait_for_the_books(store: SqliteCalls) -> None:
    """No row is written before the books have the ends of holds."""
    books = asyncio.Event()

    async def wait() -> None:
        await books.wait()

    queue = CallQueue(store, SystemClock(), wait, PlainMetrics("test"))
    task = asyncio.create_task(queue.run())
    put(queue, settled_record(1, "hold-1", 5))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.7):
            await queue.flush()
    assert await rows(store) == []

    books.set()
    await queue.flush()
    assert len(await rows(store)) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_batch_is_written_once(store: SqliteCalls) -> None:
    """A batch whose confirmation was lost changes nothing when it is written again."""
    async with running(store) as queue:
        put(queue, ended_record())
        await queue.flush()
    (row,) = await rows(store)
    other = msgspec.structs.replace(row, id="call-other")
    batch = CallBatch(writer="w", number=1, at_ms=row.at_ms, rows=[other])

    await store.write(batch)
    await store.write(batch)

    assert {each.id for each in await rows(store)} == {row.id, other.id}
    (segment,) = await store.segments(0, 2**53)
    (day,) = await segment.read(logged_days)
    of_rows, kept = await segment.read(sums_of_day, day)
    assert of_rows == kept
    assert {calls for calls, *_ in of_rows.values()} == {2}


async def test_a_task_that_ends_at_any_step_loses_no_row(store: SqliteCalls) -> None:
    """What it has not written is written by the next one, once."""
    queue = CallQueue(store, SystemClock(), settled, PlainMetrics("test"), calls_max=100)
    for steps in range(12):
        put(queue, ended_record(steps))
        flush = asyncio.create_task(queue.flush())
        task = asyncio.create_task(queue.run())
        for _ in range(steps):
            await asyncio.sleep(0.001 * (steps % 3))
        task.cancel()
        flush.cancel()
        await asyncio.gather(task, flush, return_exceptions=True)

    task = asyncio.create_task(queue.run())
    await queue.flush()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    written = sorted(row.request_id for row in await rows(store))
    assert written == sorted(f"req-{number}" for number in range(12))
