"""`ledger verify` of the call log: each discrepancy with the ledger is found."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

from services.call_log.call_audit import audit_calls
from services.call_log.call_queue import row_of
from services.domain.usage import Usage
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.storage.accounts import credit_account, ensure_account
from services.storage.base import Database
from services.storage.call_rows import CallRow
from services.storage.call_store import CallBatch, CallStore
from services.storage.call_sums import DAY_MS
from services.storage.hold_sums import OldHolds, forget_holds
from services.storage.opening import call_store, open_database
from tests.stand.call_records import ended_record, settled_record
from tests.stand.clock import FakeClock

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Books:
    """A ledger with calls of two accounts, and their rows, which are not written yet."""

    database: Database
    store: CallStore
    rows: Sequence[CallRow]
    state: Path
    url: str

    async def write(self, *rows: CallRow) -> None:
        """Write rows of the call log."""
        await self.store.write(CallBatch(writer="w", number=1, at_ms=rows[0].at_ms, rows=rows))

    async def findings(self) -> Sequence[str]:
        """Return the findings, without the names of what they concern."""
        audit = await audit_calls(self.store, self.database)
        return [finding.rpartition(": ")[0] for finding in audit.findings]

    async def change_log(self, statement: str) -> None:
        """Change the log's tables as another program can."""
        if self.url:
            admin = await asyncpg.connect(self.url)
            await admin.execute(statement)
            await admin.close()
            return
        (file,) = self.state.glob("calls/*.db")
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(statement)


@pytest.fixture
async def books(tmp_path: Path, each_database_url: str) -> AsyncIterator[Books]:
    """The books in each database."""
    clock = FakeClock()
    database = await open_database(tmp_path, each_database_url, clock)
    store = call_store(tmp_path, each_database_url)
    rows = []
    async with Ledger(database, clock) as ledger:
        for number, account in enumerate(("acme", "acme", "other")):
            await database.write(ensure_account, account, 0)
            await database.write(credit_account, account, 1000, f"inv-{number}", 0)
            asked = (HoldTerms(account=account, key_id="k", model="m"), f"r-{number}", 100)
            hold = await ledger.reserve(*asked)
            ledger.settle(hold, 10 + number, Usage(prompt_token_count=3))
            record = settled_record(
                number, hold.id, 10 + number, account=account, key_id="k", model="m"
            )
            record.facts.hold_ms = hold.row.created_ms
            rows.append(row_of(record, 0.0))
            clock.advance(HOUR_S)
        await ledger.drain()
        yield Books(database, store, rows, tmp_path, each_database_url)
    await store.close()
    await database.close()


async def test_rows_of_their_holds_are_in_order(books: Books) -> None:
    """Also with a call that was refused before a hold, and a hold without a row."""
    refused = ended_record()
    await books.write(*books.rows[:2], row_of(refused, books.rows[0].at_ms / 1000))

    audit = await audit_calls(books.store, books.database)

    assert audit.findings == ()
    assert audit.counts == {"calls": 2, "holds_without_call": 1}


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ({"charge": 9}, "C1: charge differs from the hold's"),
        ({"charge": 0}, "C1: charge differs from the hold's"),
        ({"account": "other"}, "C1: account, key or time differ from the hold's"),
        ({"key_id": "key-2"}, "C1: account, key or time differ from the hold's"),
        ({"at_ms": 1}, "C1: account, key or time differ from the hold's"),
        ({"hold_id": "hold-0"}, "C1: row without a hold that has ended"),
        ({"hold_id": ""}, "C1: row without a hold that has ended"),
    ],
    ids=str,
)
async def test_a_row_that_is_not_as_its_hold_is_found(
    books: Books, values: dict[str, object], finding: str
) -> None:
    """Its charge, account, key, time, and the hold itself."""
    first, *others = books.rows
    await books.write(replace(first, **values), *others)

    assert await books.findings() == [finding]


async def test_two_rows_of_one_hold_are_found(books: Books) -> None:
    """Their sum would be more than the ledger's."""
    first, *others = books.rows
    await books.write(first, replace(first, id=f"{first.id[:-1]}x"), *others)

    assert await books.findings() == ["C1: another row has the same hold"]


async def test_rows_may_be_older_than_the_holds_that_are_kept(books: Books) -> None:
    """The sums of deleted holds bound them: a row too many, or a charge, is found."""
    await books.write(*books.rows)
    later_ms = books.rows[-1].at_ms + 2 * DAY_MS
    old = OldHolds(before_ms=later_ms - later_ms % DAY_MS, limit=100)
    deleted = await books.database.write(forget_holds, "test", old)
    assert deleted is not None
    assert len(deleted) == 3

    audit = await audit_calls(books.store, books.database)

    assert audit.findings == ()
    assert audit.counts["calls"] == 3
    await books.change_log("UPDATE calls SET charge = charge + 1 WHERE charge = 12")
    assert "C1: row without a hold that has ended" in await books.findings()


SUMS_CHANGES = [
    "DELETE FROM calls WHERE charge = 10",
    "DELETE FROM calls",
    "DELETE FROM call_sums WHERE span_ms = 3600000 AND account = 'acme'",
    "DELETE FROM call_sums WHERE account = ''",
    "DELETE FROM call_sums",
    "UPDATE call_sums SET start_ms = start_ms + 3600000 WHERE charge = 12",
    *(
        f"UPDATE call_sums SET {column} = {column} + 1 WHERE span_ms = {span_ms} "  # noqa: S608
        f"AND account {equal} '' AND charge >= 12"
        for column in ("calls", "failures", "prompt_tokens", "cache_read_tokens", "charge", "cost")
        for span_ms in (3_600_000, 86_400_000)
        for equal in ("=", "<>")
    ),
]


@pytest.mark.parametrize("change", SUMS_CHANGES)
async def test_sums_that_are_not_those_of_the_rows_are_found(books: Books, change: str) -> None:
    """Of hours and of days, by names and over all accounts, in each figure."""
    await books.write(*books.rows)
    assert await books.findings() == []

    await books.change_log(change)

    assert await books.findings() == ["C2: sums differ from the rows"]
