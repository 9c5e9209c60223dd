"""What both databases promise alike."""

from __future__ import annotations

import asyncio

import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure
from services.storage.base import ConstraintError, Database, Row, Transaction
from tests.services.storage.transactions import broken, count, put


async def test_one_that_fails_undoes_only_itself(database: Database) -> None:
    """Of a hundred transactions that share a commit, those that raise leave nothing behind."""
    results = await asyncio.gather(
        *(database.write(put, f"n{n}", fail=n % 2 == 1) for n in range(100)),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [str, LookupError] * 50
    assert await database.read(count) == 50


async def test_notices_come_after_the_commit_and_only_then(database: Database) -> None:
    """Listeners hear of what was committed, before whoever wrote it goes on."""
    heard: list[str] = []
    database.subscribe(heard.append)

    await asyncio.gather(
        database.write(put, "a"), database.write(put, "b", fail=True), return_exceptions=True
    )

    assert set(heard) == {"a"}


async def test_broken_constraint_is_a_fault_of_one(database: Database) -> None:
    """A constraint fails the transaction that broke it, and not its neighbours."""
    results = await asyncio.gather(
        database.write(put, "a"),
        database.write(put, "a"),
        database.write(put, "b"),
        return_exceptions=True,
    )

    assert results[0] == "a"
    assert isinstance(results[1], ConstraintError)
    assert results[2] == "b"


async def test_failure_of_the_database_is_unavailable(database: Database) -> None:
    """What the database itself refuses is STORAGE_UNAVAILABLE, and the next call may work."""
    with pytest.raises(Failure) as refused:
        await database.write(broken)

    assert refused.value.reason == reasons.ERROR_REASON_STORAGE_UNAVAILABLE
    assert refused.value.retry_after_s is not None
    assert not database.healthy
    assert await database.write(put, "a") == "a"
    assert database.healthy


async def test_cancelled_caller_harms_nobody(database: Database) -> None:
    """Whoever leaves while the batch runs does not disturb those who stay."""
    leaving = asyncio.ensure_future(database.write(put, "leaves"))
    staying = asyncio.ensure_future(database.write(put, "stays"))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying == "stays"
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_changes_are_counted(database: Database) -> None:
    """A statement that returns nothing of what it changes is handed an empty row for each."""
    await asyncio.gather(*(database.write(put, name) for name in ("a", "b", "c")))

    assert await database.write(rename, "a") == [()]
    assert await database.write(rename, "nobody") == []
    assert await database.write(rename, "%") == [(), (), ()]


async def test_a_read_sees_one_moment(database: Database) -> None:
    """What is written while a transaction reads does not show in it."""
    seen = await asyncio.gather(
        *(database.read(count_twice) for _ in range(10)),
        *(database.write(put, f"n{n}") for n in range(10)),
    )

    assert all(first == second for first, second in seen[:10])


def count_twice() -> Transaction[tuple[int, int]]:
    """How many rows there are, twice."""
    first = yield from count()
    second = yield from count()
    return first, second


async def test_whatever_is_bound_is_text(database: Database) -> None:
    """Quotes, wildcards and statements in a value are only characters of it."""
    names = ["' OR 1=1 --", "%", "_", '"; DROP TABLE settings; --', "$1 ? :x", "ключ"]
    for name in names:
        await database.write(put, name)

    assert await database.read(count) == len(names)


async def test_times_are_milliseconds(database: Database) -> None:
    """The database's clock counts milliseconds since 1970."""
    now_ms = await database.read(now)

    assert 1_700_000_000_000 < now_ms < 4_000_000_000_000


def now() -> Transaction[int]:
    """The database's time."""
    rows = yield "SELECT now_ms()", ()
    return int(str(rows[0][0]))


async def test_transfers_stay(database: Database) -> None:
    """A transfer can neither be changed nor removed, whatever this program may try."""
    await database.write(transfer)
    for change in ("UPDATE transfers SET amount = 2", "DELETE FROM transfers"):
        with pytest.raises(ConstraintError):
            await database.write(statement, change)


def transfer() -> Transaction[None]:
    """Moves money."""
    yield "INSERT INTO transfers VALUES ('t', 'a', 'b', 1, 0)", ()


def statement(sql: str) -> Transaction[None]:
    """Runs a statement."""
    yield sql, ()


async def test_closed_twice_is_closed(database: Database) -> None:
    """After `close` everything is refused, and to close again changes nothing."""
    await database.close()
    await database.close()

    for call in (database.write(put, "late"), database.read(count)):
        with pytest.raises(Failure) as refused:
            await call
        assert refused.value.reason == reasons.ERROR_REASON_STORAGE_UNAVAILABLE


def rename(pattern: str) -> Transaction[list[Row]]:
    """Changes the rows that are so named, and returns what it was handed."""
    rows = yield "UPDATE settings SET value = 'new' WHERE name LIKE ?", (pattern,)
    return list(rows)
