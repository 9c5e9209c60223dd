"""Shared suite of the databases."""

from __future__ import annotations

import asyncio

import pytest

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.base import ConstraintError, Database, Row, Transaction
from tests.services.storage.transactions import broken, count, put


async def test_a_failed_transaction_rolls_back_only_itself(database: Database) -> None:
    """Of a hundred transactions that share a commit, those that raise have no effect."""
    results = await asyncio.gather(
        *(database.write(put, f"n{n}", fail=n % 2 == 1) for n in range(100)),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [str, LookupError] * 50
    assert await database.read(count) == 50


async def test_notices_follow_the_commit(database: Database) -> None:
    """Listeners get notices of committed transactions only, before their callers resume."""
    heard: list[str] = []
    database.subscribe(heard.append)

    await asyncio.gather(
        database.write(put, "a"), database.write(put, "b", fail=True), return_exceptions=True
    )

    # An empty notice says that a connection for notices has begun.
    assert set(heard) - {""} == {"a"}


async def test_a_broken_constraint_fails_only_its_transaction(database: Database) -> None:
    """A constraint fails the transaction that broke it, and no other of the batch."""
    results = await asyncio.gather(
        database.write(put, "a"),
        database.write(put, "a"),
        database.write(put, "b"),
        return_exceptions=True,
    )

    same = results[:2]  # Which of them comes first is up to the database.
    assert "a" in same
    assert any(isinstance(result, ConstraintError) for result in same)
    assert results[2] == "b"


async def test_an_error_of_the_database_is_unavailable(database: Database) -> None:
    """An error of the database itself is STORAGE_UNAVAILABLE, and the next call may succeed."""
    with pytest.raises(Failure) as refused:
        await database.write(broken)

    assert refused.value.reason == ErrorReason.STORAGE_UNAVAILABLE
    assert refused.value.retry_after_s is not None
    assert not database.healthy
    assert await database.write(put, "a") == "a"
    assert database.healthy


async def test_a_cancelled_caller_disturbs_no_other(database: Database) -> None:
    """A caller that is cancelled while the batch runs does not disturb the others."""
    leaving = asyncio.ensure_future(database.write(put, "leaves"))
    staying = asyncio.ensure_future(database.write(put, "stays"))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying == "stays"
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_changed_rows_are_counted(database: Database) -> None:
    """A statement without RETURNING yields an empty row for each changed one."""
    await asyncio.gather(*(database.write(put, name) for name in ("a", "b", "c")))

    assert await database.write(rename, "a") == [()]
    assert await database.write(rename, "nobody") == []
    assert await database.write(rename, "%") == [(), (), ()]


async def test_a_read_sees_one_snapshot(database: Database) -> None:
    """Writes during a reading transaction are invisible to it."""
    seen = await asyncio.gather(
        *(database.read(count_twice) for _ in range(10)),
        *(database.write(put, f"n{n}") for n in range(10)),
    )

    assert all(first == second for first, second in seen[:10])


def count_twice() -> Transaction[tuple[int, int]]:
    """Count the rows twice."""
    first = yield from count()
    second = yield from count()
    return first, second


async def test_bound_values_are_never_sql(database: Database) -> None:
    """Quotes, wildcards and statements in a value are plain characters."""
    names = ["' OR 1=1 --", "%", "_", '"; DROP TABLE settings; --', "$1 ? :x", "ключ"]
    for name in names:
        await database.write(put, name)

    assert await database.read(count) == len(names)


async def test_times_are_milliseconds(database: Database) -> None:
    """The database's clock counts milliseconds since 1970."""
    now_ms = await database.read(now)

    assert 1_700_000_000_000 < now_ms < 4_000_000_000_000


def now() -> Transaction[int]:
    """Return the database's time."""
    rows = yield "SELECT now_ms()", ()
    return int(str(rows[0][0]))


async def test_transfers_are_append_only(database: Database) -> None:
    """The database refuses to change or remove a transfer."""
    await database.write(transfer)
    for change in ("UPDATE transfers SET amount = 2", "DELETE FROM transfers"):
        with pytest.raises(ConstraintError):
            await database.write(statement, change)


def transfer() -> Transaction[None]:
    """Insert a transfer."""
    yield "INSERT INTO transfers VALUES ('t', 'a', 'b', 1, 0)", ()


def statement(sql: str) -> Transaction[None]:
    """Run a statement."""
    yield sql, ()


async def test_close_is_idempotent(database: Database) -> None:
    """After `close` every call is refused, and closing again changes nothing."""
    await database.close()
    await database.close()

    for call in (database.write(put, "late"), database.read(count)):
        with pytest.raises(Failure) as refused:
            await call
        assert refused.value.reason == ErrorReason.STORAGE_UNAVAILABLE


def rename(pattern: str) -> Transaction[list[Row]]:
    """Rename matching rows, and return the rows of the result."""
    rows = yield "UPDATE settings SET value = 'new' WHERE name LIKE ?", (pattern,)
    return list(rows)
