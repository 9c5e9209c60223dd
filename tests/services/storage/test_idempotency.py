from __future__ import annotations

import asyncio
import sqlite3
from itertools import count
from pathlib import Path

import pytest

from services.storage.accounts import account_by_name
from services.storage.base import Database
from services.storage.idempotency import (
    RUNNING,
    SPENT,
    STORED,
    Run,
    UsedKey,
    bound_account,
    claim,
    delete_expired,
    release,
    store_answer,
)
from services.storage.leases import end_expired_leases, end_leases, renew_lease
from services.storage.schema import BOOKS
from services.storage.sqlite import SqliteDatabase
from services.storage.sqlite_file import FILE
from tests.stand.clock import FakeClock

DAY_MS = 24 * 3600 * 1000
EXPIRED_MS = -1

_numbers = count(1)


def run(key: str = "order-1", account: str = "acme") -> Run:
    """Build a new run."""
    return Run(account=account, key=key, id=f"run-{next(_numbers)}")


@pytest.fixture(autouse=True)
async def _owners(database: Database) -> None:
    """Give two processes a lease."""
    for owner in ("p1", "p2"):
        await database.write(renew_lease, owner, DAY_MS)


async def test_of_many_concurrent_claims_one_is_granted(database: Database) -> None:
    """The others get the key that is in use."""
    records = await asyncio.gather(
        *(database.write(claim, run(), "print", f"p{1 + n % 2}") for n in range(20))
    )

    assert records.count(None) == 1
    assert records.count(UsedKey("print", RUNNING, None)) == 19


async def test_keys_of_accounts_are_independent(database: Database) -> None:
    """The same key of another account is another call."""
    assert await database.write(claim, run(account="acme"), "print", "p1") is None
    assert await database.write(claim, run(account="other"), "print", "p1") is None


async def test_an_answer_is_stored_unchanged(database: Database) -> None:
    """An answer may contain any bytes."""
    first = run()
    await database.write(claim, first, "print", "p1")
    assert await database.write(store_answer, first, bytes(range(256)), DAY_MS)

    record = await database.write(claim, run(), "other print", "p2")

    assert record == UsedKey("print", STORED, bytes(range(256)))


async def test_a_key_may_be_stored_without_an_answer(database: Database) -> None:
    """The key stays in use."""
    first = run()
    await database.write(claim, first, "print", "p1")
    await database.write(store_answer, first, None, DAY_MS)

    assert await database.write(claim, run(), "print", "p1") == UsedKey("print", SPENT, None)


async def test_a_released_key_is_free(database: Database) -> None:
    """A released key may be claimed for another request."""
    first = run()
    await database.write(claim, first, "print", "p1")
    await database.write(release, first)

    assert await database.write(claim, run(), "another", "p1") is None


async def test_a_run_does_not_end_another(database: Database) -> None:
    """Another run can neither store an answer nor release the key."""
    await database.write(claim, run(), "print", "p1")
    other = run()
    await database.write(release, other)

    assert not await database.write(store_answer, other, b"answer", DAY_MS)
    assert await database.write(claim, run(), "print", "p1") == UsedKey("print", RUNNING, None)


async def test_a_stored_answer_is_not_released(database: Database) -> None:
    """A late release changes nothing."""
    first = run()
    await database.write(claim, first, "print", "p1")
    await database.write(store_answer, first, b"answer", DAY_MS)
    await database.write(release, first)

    assert await database.write(claim, run(), "print", "p1") == UsedKey("print", STORED, b"answer")


@pytest.mark.parametrize("lapsed", [True, False])
async def test_keys_of_dead_processes_are_free(database: Database, lapsed: bool) -> None:
    """A key whose process has no lease may be claimed, and the old run cannot end it any more."""
    first, second = run(), run()
    await database.write(claim, first, "print", "p1")
    if lapsed:
        await database.write(renew_lease, "p1", EXPIRED_MS)
        seen = await database.write(end_expired_leases, [])
        assert await database.write(claim, second, "another", "p2") is not None
        await database.write(end_expired_leases, seen)
    else:
        await database.write(end_leases, "p1")

    assert await database.write(claim, second, "another", "p2") is None
    assert not await database.write(store_answer, first, b"late", DAY_MS)
    assert await database.write(store_answer, second, b"answer", DAY_MS)


async def test_an_expired_key_is_free(database: Database) -> None:
    """An expired key may be claimed even before it is deleted."""
    first = run()
    await database.write(claim, first, "print", "p1")
    await database.write(store_answer, first, b"answer", EXPIRED_MS)

    assert await database.write(claim, run(), "another", "p1") is None
    assert await database.write(claim, run(), "another", "p1") == UsedKey("another", RUNNING, None)


async def test_a_database_of_the_first_version_is_migrated(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The migration keeps the data."""
    file = sqlite3.connect(tmp_path / FILE)
    for statement in (part for version in BOOKS.applied(1, "sqlite") for part in version):
        file.execute(statement)
    file.execute("INSERT INTO accounts (name, unlimited, created_ms) VALUES ('acme', 1, 0)")
    file.execute("PRAGMA user_version = 1")
    file.commit()
    file.close()

    database = await SqliteDatabase.open(tmp_path, clock)

    assert await database.write(claim, run(), "print", "p1") is None
    assert await database.read(account_by_name, "acme") is not None
    await database.close()


async def test_the_oldest_answers_and_keys_of_an_account_are_dropped(database: Database) -> None:
    """The newest that fit are kept, and so are running calls and other accounts."""
    runs = [run(f"k{n}") for n in range(6)] + [run("other", account="other")]
    for age, each in enumerate(reversed(runs)):
        await database.write(claim, each, "print", "p1")
        await database.write(store_answer, each, bytes(100), DAY_MS + age * 1000)
    await database.write(claim, run("running"), "print", "p1")

    assert await database.write(bound_account, "acme", 350, 5) == (3, 1)
    assert await database.write(bound_account, "acme", 350, 5) == (0, 0)

    states = []
    for each in runs:
        used = await database.write(claim, run(each.key, each.account), "print", "p1")
        states.append(used.state if used else None)
    assert states == [STORED, STORED, STORED, SPENT, SPENT, None, STORED]
    used = await database.write(claim, run("running"), "print", "p1")
    assert used is not None
    assert used.state == RUNNING


async def test_only_free_keys_are_deleted(database: Database) -> None:
    """Expired keys and keys of dead processes are deleted, at most `limit` at a time."""
    for key, keep_ms, owner in (
        ("kept", DAY_MS, "p1"),
        ("expired", EXPIRED_MS, "p1"),
        ("running", None, "p1"),
        ("orphaned", None, "dead"),
    ):
        each = run(key)
        await database.write(claim, each, "print", owner)
        if keep_ms is not None:
            await database.write(store_answer, each, b"answer", keep_ms)

    assert [await database.write(delete_expired, 1) for _ in range(3)] == [1, 1, 0]
    for key in ("kept", "running"):
        assert await database.write(claim, run(key), "print", "p1") is not None
