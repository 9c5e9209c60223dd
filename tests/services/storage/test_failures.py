from __future__ import annotations

import pytest

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.base import Database, Transaction
from services.storage.delegating import DelegatingDatabase


def nothing() -> Transaction[int]:
    """Run no statement that matters."""
    yield "SELECT 1", ()
    return 1


def refusal() -> Transaction[int]:
    """Raise a failure of the transaction's own."""
    yield "SELECT 1", ()
    raise Failure(ErrorReason.NOT_FOUND, "")


async def test_failures_are_counted(database: Database) -> None:
    """Failures of the database are counted, failures raised by a transaction are not."""
    assert await database.write(nothing) == 1
    assert await database.read(nothing) == 1
    with pytest.raises(Failure):
        await database.read(refusal)
    assert database.failures == 0
    await database.close()
    for run in (database.write, database.write_unsynced, database.read):
        with pytest.raises(Failure) as failed:
            await run(nothing)
        assert failed.value.reason == ErrorReason.STORAGE_UNAVAILABLE
    assert database.failures == 3


async def test_other_methods_are_delegated(database: Database) -> None:
    """`healthy`, `failures` and `hold_journal` are those of the database."""
    delegating = DelegatingDatabase(database)
    notices: list[str] = []
    delegating.subscribe(notices.append)

    assert delegating.healthy is database.healthy
    assert delegating.failures == database.failures
    assert delegating.hold_journal is database.hold_journal
