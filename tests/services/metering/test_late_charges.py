"""Calls that end after another process has recovered their holds."""

from __future__ import annotations

import logging

import pytest

from services.metering.holds import Hold
from services.metering.ledger import Ledger
from services.storage.account_sums import credits_of
from services.storage.accounts import credit_account
from tests.services.metering.test_hold_retention import DAY_S, KEEP_DAYS, retention
from tests.services.metering.test_ledger import USD, Books, books, ledger, order, usage
from tests.stand.clock import FakeClock

__all__ = ["books", "ledger"]

CHECKPOINT = 3


@pytest.fixture
def is_shared(books: Books) -> bool:
    """Whether several processes use the database: then a charge is corrected later."""
    return books.database.hold_journal is None


async def recovered_hold(
    ledger: Ledger, books: Books, clock: FakeClock, *, checkpoint: int | None = CHECKPOINT
) -> Hold:
    """A hold of a process that stood still until another one had recovered it."""
    hold = await ledger.reserve(*order(monthly_nano=100 * USD))
    await ledger.drain()
    if checkpoint is not None:
        ledger.checkpoint(hold, checkpoint, usage(prompt=1))
        await ledger._checkpoints.write()
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


@pytest.mark.parametrize("checkpoint", [CHECKPOINT, USD + CHECKPOINT])
@pytest.mark.parametrize("less", [0, 1, None])
async def test_what_the_checkpoint_was_above_the_charge_is_given_back(
    ledger: Ledger,
    books: Books,
    clock: FakeClock,
    is_shared: bool,
    checkpoint: int,
    less: int | None,
) -> None:
    """Also all of it, for a void call, and where the checkpoint was above the hold of 1 USD."""
    hold = await recovered_hold(ledger, books, clock, checkpoint=checkpoint)

    if less is None:
        ledger.void(hold)
    else:
        ledger.settle(hold, checkpoint - less, usage(prompt=99))
    await ledger.drain()

    corrected = is_shared and less != 0
    charge = checkpoint if not corrected else 0 if less is None else checkpoint - less
    assert await books.balance() == (10 * USD - charge, 0)
    row = await books.hold(hold)
    assert (row["charge"], row["overrun"]) == (charge, max(charge - USD, 0))
    ended = "voided" if less is None else "settled"
    assert row["state"] == (ended if corrected else "recovered")
    of_account = await books.database.read(credits_of, "acme")
    assert of_account is not None
    assert (of_account.credited, of_account.charged) == (10 * USD, charge)


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
        ledger.settle(second, CHECKPOINT, usage())
        await ledger.drain()

    told = {
        record.message: record.hold_ids  # type: ignore[attr-defined]
        for record in caplog.records
    }
    late = {"holds.charged_late": [first.id]} if is_shared else {}
    ended = [second.id] if is_shared else [first.id, second.id]
    assert told == {**late, "holds.already_ended": ended}


async def test_the_audit_accounts_for_what_was_given_back(
    ledger: Ledger, books: Books, clock: FakeClock, is_shared: bool
) -> None:
    """Also when the hold is deleted after its retention."""
    hold = await recovered_hold(ledger, books, clock)
    ledger.settle(hold, CHECKPOINT - 1, usage())
    await ledger.drain()
    await books.clean()
    clock.advance((KEEP_DAYS + 10) * DAY_S)
    await retention(books.database, clock).forget()

    assert (await books.clean())["transfers"] == (3 if is_shared else 2)
