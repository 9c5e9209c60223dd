"""Calls that end after another process has recovered their holds."""

from __future__ import annotations

import logging

import pytest

from services.metering.holds import Hold
from services.metering.ledger import Ledger
from services.storage.accounts import credit_account
from tests.services.metering.test_ledger import USD, Books, books, ledger, order, usage
from tests.stand.clock import FakeClock

__all__ = ["books", "ledger"]

CHECKPOINT = 3


@pytest.fixture
def is_shared(books: Books) -> bool:
    """Whether several processes use the database: then the rest of a charge is taken later."""
    return books.database.hold_journal is None


async def recovered_hold(
    ledger: Ledger, books: Books, clock: FakeClock, *, checkpoint: int | None = CHECKPOINT
) -> Hold:
    """A hold of a process that stood still until another one had recovered it."""
    hold = await ledger.reserve(order(monthly_nano=100 * USD))
    await ledger.drain()
    if checkpoint is not None:
        ledger.checkpoint(hold, checkpoint, usage(prompt=1))
        await ledger._write_checkpoints()
    await books.end_expired_leases(ledger)
    assert await Ledger(books.database, clock).sweep() == 1
    return hold


@pytest.mark.parametrize("checkpoint", [CHECKPOINT, None])
async def test_the_rest_is_charged(
    ledger: Ledger, books: Books, clock: FakeClock, is_shared: bool, checkpoint: int | None
) -> None:
    """A process that goes on charges what its call cost beyond the last checkpoint, once."""
    hold = await recovered_hold(ledger, books, clock, checkpoint=checkpoint)

    ledger.settle(hold, 5, usage(prompt=99))
    await ledger.drain()

    charge = 5 if is_shared else checkpoint or 0
    assert await books.balance() == (10 * USD - charge, 0)
    row = await books.hold(hold)
    assert row["charge"] == charge
    if is_shared:
        assert (row["state"], row["prompt_tokens"]) == ("settled", 99)


@pytest.mark.parametrize("charge", [0, CHECKPOINT - 1, CHECKPOINT])
async def test_nothing_is_given_back(
    ledger: Ledger, books: Books, clock: FakeClock, charge: int
) -> None:
    """Where the last checkpoint was as much, or the call is void, the charge stays."""
    hold = await recovered_hold(ledger, books, clock)

    if charge:
        ledger.settle(hold, charge, usage())
    else:
        ledger.void(hold)
    await ledger.drain()

    assert await books.balance() == (10 * USD - CHECKPOINT, 0)
    assert (await books.hold(hold))["state"] == "recovered"


async def test_a_balance_that_was_spent_meanwhile_becomes_negative(
    ledger: Ledger, books: Books, clock: FakeClock, is_shared: bool
) -> None:
    """By no more than the rest, which is recorded as overrun."""
    hold = await recovered_hold(ledger, books, clock)
    await books.database.write(credit_account, "acme", CHECKPOINT - 10 * USD, "all", 0)

    ledger.settle(hold, 2 * USD, usage())
    await ledger.drain()

    rest = 2 * USD - CHECKPOINT
    assert await books.balance() == (-rest if is_shared else 0, 0)
    assert (await books.hold(hold))["overrun"] == (rest if is_shared else 0)


async def test_the_log_says_which_holds_were_charged_late(
    ledger: Ledger,
    books: Books,
    clock: FakeClock,
    is_shared: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And which had ended for good."""
    first, second = [await recovered_hold(ledger, books, clock) for _ in range(2)]
    caplog.clear()

    with caplog.at_level(logging.WARNING):
        ledger.settle(first, 5, usage())
        ledger.void(second)
        await ledger.drain()

    told = {
        record.message: record.hold_ids  # type: ignore[attr-defined]
        for record in caplog.records
    }
    late = {"holds.charged_late": [first.id]} if is_shared else {}
    ended = [second.id] if is_shared else [first.id, second.id]
    assert told == {**late, "holds.already_ended": ended}
