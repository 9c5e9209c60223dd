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
    claim,
    delete_expired,
    release,
    store_answer,
)
from services.storage.ledger import end_expired_leases, end_leases, renew_lease
from services.storage.schema import applied
from services.storage.sqlite import SqliteDatabase
from services.storage.sqlite_file import FILE
from tests.stand.clock import FakeClock

DAY_MS = 24 * 3600 * 1000
EXPIRED_MS = -1

_numbers = count(1)


def run(key: str = "order-1", account: str = "acme") -> Run:
    """A new attempt."""
    return Run(account=account, key=key, id=f"run-{next(_numbers)}")


@pytest.fixture(autouse=True)
async def _owners(database: Database) -> None:
    """Two processes that live."""
    for owner in ("p1", "p2"):
        await database.write(renew_lease, owner, DAY_MS)


async def test_of_many_claims_at_once_one_is_granted(database: Database) -> None:
    """The others are told what the key is used for."""
    records = await asyncio.gather(
        *(database.write(claim, run(), "print", f"p{1 + n % 2}") for n in range(20))
    )

    assert records.count(None) == 1
    assert records.count(UsedKey("print", RUNNING, None)) == 19


async def test_accounts_have_keys_of_their_own(database: Database) -> None:
    """The same name is another call in another account."""
    assert await database.write(claim, run(account="acme"), "print", "p1") is None
    assert await database.write(claim, run(account="other"), "print", "p1") is None


async def test_an_answer_is_given_back_as_it_was(database: Database) -> None:
    """Any bytes."""
    first = run()
    await database.write(claim, first, "print", "p1")
    assert await database.write(store_answer, first, bytes(range(256)), DAY_MS)

    record = await database.write(claim, run(), "other print", "p2")

    assert record == UsedKey("print", STORED, bytes(range(256)))


async def test_an_answer_may_be_left_out(database: Database) -> None:
    """The key is in use all the same."""
    first = run()
    await database.write(claim, first, "print", "p1")
    await database.write(store_answer, first, None, DAY_MS)

    assert await database.write(claim, run(), "print", "p1") == UsedKey("print", SPENT, None)


async def test_a_released_key_is_free(database: Database) -> None:
    """For anything."""
    first = run()
    await database.write(claim, first, "print", "p1")
    await database.write(release, first)

    assert await database.write(claim, run(), "another", "p1") is None


async def test_nobody_ends_the_attempt_of_another(database: Database) -> None:
    """Neither with an answer nor without."""
    await database.write(claim, run(), "print", "p1")
    stranger = run()
    await database.write(release, stranger)

    assert not await database.write(store_answer, stranger, b"answer", DAY_MS)
    assert await database.write(claim, run(), "print", "p1") == UsedKey("print", RUNNING, None)


async def test_an_answer_that_is_kept_is_not_released(database: Database) -> None:
    """What comes late changes nothing."""
    first = run()
    await database.write(claim, first, "print", "p1")
    await database.write(store_answer, first, b"answer", DAY_MS)
    await database.write(release, first)

    assert await database.write(claim, run(), "print", "p1") == UsedKey("print", STORED, b"answer")


@pytest.mark.parametrize("lapsed", [True, False])
async def test_the_dead_leave_their_keys(database: Database, lapsed: bool) -> None:
    """A key whose process has no lease is taken over, and the dead cannot have it back."""
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


async def test_an_expired_answer_is_no_answer(database: Database) -> None:
    """Even before it is deleted."""
    first = run()
    await database.write(claim, first, "print", "p1")
    await database.write(store_answer, first, b"answer", EXPIRED_MS)

    assert await database.write(claim, run(), "another", "p1") is None
    assert await database.write(claim, run(), "another", "p1") == UsedKey("another", RUNNING, None)


async def test_a_database_of_the_first_version_learns_it(tmp_path: Path, clock: FakeClock) -> None:
    """What was in it stays."""
    file = sqlite3.connect(tmp_path / FILE)
    for statement in (part for version in applied(1, "sqlite") for part in version):
        file.execute(statement)
    file.execute("INSERT INTO accounts (name, unlimited, created_ms) VALUES ('acme', 1, 0)")
    file.execute("PRAGMA user_version = 1")
    file.commit()
    file.close()

    database = await SqliteDatabase.open(tmp_path, clock)

    assert await database.write(claim, run(), "print", "p1") is None
    assert await database.read(account_by_name, "acme") is not None
    await database.close()


async def test_only_free_keys_are_forgotten(database: Database) -> None:
    """Those that expired, and those of the dead; no more than were asked for at a time."""
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
