from __future__ import annotations

import pytest

from services.common.plain_metrics import PlainMetrics
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.base import Database, Transaction
from services.storage.counted import CountedDatabase
from tests.stand.failing_database import WatchedDatabase


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
    failing = WatchedDatabase(database, lambda write: "before" if write > 1 else "")
    counted = CountedDatabase(failing, PlainMetrics(""))

    assert await counted.write(nothing) == 1
    assert await counted.read(nothing) == 1
    with pytest.raises(Failure):
        await counted.read(refusal)
    assert counted.failures.value == 0
    for write in (counted.write, counted.write_unsynced):
        with pytest.raises(Failure) as failed:
            await write(nothing)
        assert failed.value.reason == ErrorReason.STORAGE_UNAVAILABLE
    assert counted.failures.value == 2


async def test_other_methods_are_delegated(database: Database) -> None:
    """`healthy` and `hold_journal` are those of the database."""
    counted = CountedDatabase(database, PlainMetrics(""))
    notices: list[str] = []
    counted.subscribe(notices.append)

    assert counted.healthy is database.healthy
    assert counted.hold_journal is database.hold_journal
