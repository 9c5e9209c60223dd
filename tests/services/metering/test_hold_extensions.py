"""Extensions of holds: a call that costs more than expected takes more of the balance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.domain.error_reason import ErrorReason
from services.domain.usage import Usage
from services.errors import Failure
from services.metering.holds import Hold, HoldTerms
from services.metering.ledger import HEARTBEAT_S, LOST_AFTER_S, Ledger
from services.storage.accounts import account_by_name, credit_account, ensure_account
from services.storage.audit import audit
from services.storage.base import Database, Transaction
from services.storage.opening import open_database
from services.storage.reports import usage_by_model
from tests.stand.clock import FakeClock

USAGE = Usage(prompt_token_count=3, completion_token_count=4, source="counted")


@pytest.fixture
async def ledger(database: Database, clock: FakeClock) -> AsyncIterator[Ledger]:
    """A ledger, and the account `acme` with 100."""
    await database.write(ensure_account, "acme", 0)
    await database.write(credit_account, "acme", 100, "opening", 0)
    async with Ledger(database, clock) as ledger:
        yield ledger
    assert (await database.read(audit)).findings == ()


def order(amount: int = 10, **changes: Any) -> tuple[HoldTerms, str, int]:
    """A hold of a call of `acme`: its terms, the request and the amount."""
    fields = {"account": "acme", "key_id": "k", "model": "m"}
    return HoldTerms(**{**fields, **changes}), "r", amount


async def balance(database: Database) -> tuple[int, int]:
    """The balance and the held amount of `acme`. The books are audited."""
    assert (await database.read(audit)).findings == ()
    found = await database.read(account_by_name, "acme")
    assert found is not None
    return found.posted, found.held


def _rows() -> Transaction[Sequence[tuple[str, int, int, int]]]:
    rows = yield "SELECT state, amount, charge, overrun FROM holds ORDER BY extends, id", ()
    return [(str(row[0]), int(str(row[1])), int(str(row[2])), int(str(row[3]))) for row in rows]


@pytest.mark.parametrize("written", [True, False])
async def test_a_call_has_one_charge_for_its_hold_and_extensions(
    ledger: Ledger, database: Database, written: bool
) -> None:
    """Only what is beyond all of them is an overrun, and a report counts one call."""
    hold = await ledger.reserve(*order(10))
    await ledger.extend(hold, 20)
    await ledger.extend(hold, 30)
    if written:
        await ledger.drain()
        assert await balance(database) == (100, 60)
    ledger.settle(hold, 63, USAGE)
    await ledger.drain()

    assert await balance(database) == (37, 0)
    assert await database.read(_rows) == [
        ("settled", 10, 63, 3), ("voided", 20, 0, 0), ("voided", 30, 0, 0),
    ]  # fmt: skip
    (usage,) = await database.read(usage_by_model, "acme", 0, 2**60)
    assert (usage.calls, usage.charge) == (1, 63)


async def test_an_extension_beyond_the_balance_is_refused(
    ledger: Ledger, database: Database
) -> None:
    """The hold stays as it was, and the call is charged what it has cost."""
    hold = await ledger.reserve(*order(60))
    with pytest.raises(Failure) as refused:
        await ledger.extend(hold, 41)
    await ledger.extend(hold, 40)

    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    assert hold.amount_nano == 100
    ledger.settle(hold, 99, USAGE)
    await ledger.drain()
    assert await balance(database) == (1, 0)


async def test_an_extension_beyond_the_budget_is_refused(
    ledger: Ledger, database: Database
) -> None:
    """An extension counts in the month of its call."""
    hold = await ledger.reserve(*order(10, monthly_nano=30))
    await ledger.extend(hold, 20)
    with pytest.raises(Failure) as refused:
        await ledger.extend(hold, 1)
    ledger.settle(hold, 25, USAGE)
    await ledger.drain()
    with pytest.raises(Failure) as beyond:
        await ledger.reserve(*order(6, monthly_nano=30))
    ledger.void(await ledger.reserve(*order(5, monthly_nano=30)))
    await ledger.drain()

    assert {refused.value.reason, beyond.value.reason} == {ErrorReason.BUDGET_EXCEEDED}
    assert await balance(database) == (75, 0)


@pytest.mark.parametrize("calls", [1, 7, 50])
async def test_calls_that_extend_at_once_hold_no_more_than_there_is(
    ledger: Ledger, database: Database, calls: int
) -> None:
    """With all of them waiting for the database at the same time."""
    holds = [await ledger.reserve(*order(1)) for _ in range(calls)]
    outcomes = await asyncio.gather(
        *(ledger.extend(hold, 9) for hold in holds for _ in range(3)), return_exceptions=True
    )
    await ledger.drain()

    taken = outcomes.count(None)
    assert taken == min(3 * calls, (100 - calls) // 9)
    assert await balance(database) == (100, calls + 9 * taken)
    for hold in holds:
        ledger.settle(hold, hold.amount_nano, USAGE)
    await ledger.drain()
    assert await balance(database) == (100 - calls - 9 * taken, 0)


async def test_the_extension_of_a_cancelled_call_is_released(
    ledger: Ledger, database: Database
) -> None:
    """Whether it is cancelled before or after the database has taken it."""
    for turns in range(8):
        hold = await ledger.reserve(*order(10))
        extending = asyncio.ensure_future(ledger.extend(hold, 20))
        for _ in range(turns):
            await asyncio.sleep(0)
        extending.cancel()
        await asyncio.gather(extending, return_exceptions=True)
        ledger.settle(hold, 5, USAGE)
        await ledger.drain()

        assert await balance(database) == (100 - 5 * (turns + 1), 0)


@pytest.mark.parametrize(("written", "checkpointed"), [(True, True), (True, False), (False, False)])
async def test_extensions_of_a_dead_process_are_recovered(
    tmp_path: Path, each_database_url: str, written: bool, checkpointed: bool
) -> None:
    """The call is charged at its last checkpoint, and nothing stays held."""
    clock = FakeClock()
    database = await open_database(tmp_path / "state", each_database_url, clock)
    await database.write(ensure_account, "acme", 0)
    await database.write(credit_account, "acme", 100, "opening", 0)
    dead = Ledger(database, clock)
    await dead.__aenter__()
    hold = await dead.reserve(*order(10))
    await dead.extend(hold, 20)
    if written:
        await dead.drain()
    if checkpointed:
        dead.checkpoint(hold, 25, USAGE)
        await asyncio.sleep(2 * HEARTBEAT_S)
    for task in dead._tasks:
        task.cancel()
    await asyncio.gather(*dead._tasks, return_exceptions=True)
    await database.close()

    database = await open_database(tmp_path / "state", each_database_url, clock)
    await database.write(_end_leases)
    async with Ledger(database, clock):
        expected = 75 if checkpointed else 100
        assert await balance(database) == (expected, 0)
    await database.close()


def _end_leases() -> Transaction[None]:
    yield "DELETE FROM leases", ()


async def test_a_lost_hold_takes_its_extensions_with_it(
    ledger: Ledger, database: Database, clock: FakeClock
) -> None:
    """A sweep leaves those of calls in flight alone."""
    lost: list[Hold] = [await ledger.reserve(*order(10)), await ledger.reserve(*order(10))]
    for hold in lost:
        await ledger.extend(hold, 20)
    kept = lost.pop()
    await ledger.drain()
    lost.clear()
    del hold
    clock.advance(LOST_AFTER_S + 1)

    assert await ledger.sweep() == 2
    assert await balance(database) == (100, 30)
    ledger.settle(kept, 30, USAGE)
    await ledger.drain()
    assert await balance(database) == (70, 0)
