"""Admission of holds by balances in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.domain.error_reason import ErrorReason
from services.domain.usage import Usage
from services.errors import Failure
from services.metering.holds import Hold, HoldRequest
from services.metering.ledger import Ledger
from services.storage.accounts import account_by_name, credit_account, ensure_account
from services.storage.audit import audit
from services.storage.hold_journal import FILES
from services.storage.sqlite import SqliteDatabase
from tests.stand.clock import FakeClock


@pytest.fixture
async def database(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(tmp_path, clock)
    await database.write(ensure_account, "acme", 0)
    await database.write(credit_account, "acme", 100, "opening", 0)
    yield database
    assert (await database.read(audit)).findings == ()
    await database.close()


@pytest.fixture
async def ledger(database: SqliteDatabase, clock: FakeClock) -> AsyncIterator[Ledger]:
    async with Ledger(database, clock) as ledger:
        yield ledger


def order(amount: int = 10, monthly: int | None = None) -> HoldRequest:
    """A call of `acme`."""
    return HoldRequest(
        request_id="r",
        account="acme",
        key_id="k",
        model="m",
        amount_nano=amount,
        monthly_nano=monthly,
    )


async def reserve_all(ledger: Ledger, count: int) -> tuple[list[Hold], int]:
    """Reserve at once. Returns the holds, and the number of refusals."""
    results = await asyncio.gather(
        *(ledger.reserve(order()) for _ in range(count)), return_exceptions=True
    )
    holds = [result for result in results if isinstance(result, Hold)]
    refusals = [result for result in results if isinstance(result, Failure)]
    assert len(holds) + len(refusals) == count
    assert {each.reason for each in refusals} <= {ErrorReason.INSUFFICIENT_QUOTA}
    return holds, len(refusals)


@pytest.mark.parametrize("turns", range(8))
async def test_a_credit_while_an_account_is_loaded_counts_once(
    ledger: Ledger, database: SqliteDatabase, turns: int
) -> None:
    """Whether it comes before, with or after the first look at the account."""
    loading = asyncio.ensure_future(ledger.reserve(order()))
    for _ in range(turns):
        await asyncio.sleep(0)
    await database.write(credit_account, "acme", 50, "more", 0)
    first = await loading

    holds, _ = await reserve_all(ledger, 20)

    assert len(holds) == 14
    for hold in (first, *holds):
        ledger.void(hold)
    await ledger.drain()


async def test_a_withdrawal_and_calls_take_no_more_than_there_is(
    ledger: Ledger, database: SqliteDatabase
) -> None:
    """Also where the calls' holds are not in the database yet."""

    async def withdraw() -> None:
        async with ledger.withdrawing("acme", 60):
            await database.write(credit_account, "acme", -60, "out", 0)

    before, _ = await reserve_all(ledger, 3)
    withdrawing = asyncio.ensure_future(withdraw())
    await asyncio.sleep(0)
    during, refused = await reserve_all(ledger, 10)
    await withdrawing
    after, _ = await reserve_all(ledger, 10)

    assert (len(before), len(during), refused, len(after)) == (3, 1, 9, 0)
    await ledger.drain()
    account = await database.read(account_by_name, "acme")
    assert account is not None
    assert (account.posted, account.held) == (40, 40)
    for hold in (*before, *during):
        ledger.void(hold)
    await ledger.drain()


async def test_a_withdrawal_beyond_what_calls_leave_is_refused(
    ledger: Ledger, database: SqliteDatabase
) -> None:
    """The database knows the holds of a moment ago, and decides."""
    holds, _ = await reserve_all(ledger, 9)

    with pytest.raises(Failure) as refused:
        async with ledger.withdrawing("acme", 60):
            await database.write(credit_account, "acme", -60, "out", 0)

    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    more, _ = await reserve_all(ledger, 2)
    assert len(more) == 1
    for hold in (*holds, *more):
        ledger.void(hold)
    await ledger.drain()


async def test_a_hold_is_released_the_moment_its_call_ends(ledger: Ledger) -> None:
    """Before its end is in the database."""
    for _ in range(50):
        ledger.void(await ledger.reserve(order(100)))


async def test_a_budget_is_kept_in_memory(ledger: Ledger) -> None:
    """Of calls at once, as many as it covers."""
    results = await asyncio.gather(
        *(ledger.reserve(order(10, monthly=30)) for _ in range(6)), return_exceptions=True
    )

    holds = [result for result in results if isinstance(result, Hold)]
    reasons = {result.reason for result in results if isinstance(result, Failure)}
    assert (len(holds), reasons) == (3, {ErrorReason.BUDGET_EXCEEDED})
    for hold in holds:
        ledger.settle(hold, 5, Usage())
    assert isinstance(await ledger.reserve(order(15, monthly=30)), Hold)
    with pytest.raises(Failure):
        await ledger.reserve(order(1, monthly=30))
    await ledger.drain()


async def test_a_full_disk_refuses_the_call(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold that would not survive is not taken, and the balance is as before."""

    def write(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(Failure) as refused:
            await ledger.reserve(order())
    holds, _ = await reserve_all(ledger, 11)

    assert refused.value.reason == ErrorReason.STORAGE_UNAVAILABLE
    assert len(holds) == 10
    for hold in holds:
        ledger.void(hold)
    await ledger.drain()


async def test_holds_of_a_killed_process_are_found_in_its_journal(
    tmp_path: Path, database: SqliteDatabase, clock: FakeClock
) -> None:
    """They are recorded as voided: nothing of them was charged."""
    killed = Ledger(database, clock)
    await killed.reserve(order())
    assert (tmp_path / FILES[0]).stat().st_size > 0
    assert (await database.read(audit)).counts["held"] == 0

    async with Ledger(database, clock):
        counts = (await database.read(audit)).counts

    assert (counts["held"], counts["voided"]) == (0, 1)
    assert [(tmp_path / name).stat().st_size for name in FILES] == [0, 0]
