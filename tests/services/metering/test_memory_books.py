"""Admission of holds by balances in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.domain.error_reason import ErrorReason
from services.domain.usage import Usage
from services.errors import Failure
from services.metering import outbox
from services.metering.holds import Hold, HoldTerms
from services.metering.ledger import HEARTBEAT_S, Ledger
from services.storage.accounts import account_by_name, credit_account, ensure_account
from services.storage.admitted_holds import write_holds
from services.storage.audit import audit
from services.storage.base import ConstraintError, Database, Row, Transaction
from services.storage.hold_ends import end_holds
from services.storage.hold_journal import FILES
from services.storage.sqlite import SqliteDatabase
from services.telemetry.supervisor import Supervisor
from tests.stand.clock import FakeClock
from tests.stand.failing_database import WatchedDatabase


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


def order(
    amount: int = 10, monthly: int | None = None, account: str = "acme"
) -> tuple[HoldTerms, str, int]:
    """A hold of a call: its terms, the request and the amount."""
    return HoldTerms(account=account, key_id="k", model="m", monthly_nano=monthly), "r", amount


async def reserve_all(ledger: Ledger, count: int) -> tuple[list[Hold], int]:
    """Reserve at once. Returns the holds, and the number of refusals."""
    results = await asyncio.gather(
        *(ledger.reserve(*order()) for _ in range(count)), return_exceptions=True
    )
    holds = [result for result in results if isinstance(result, Hold)]
    refusals = [result for result in results if isinstance(result, Failure)]
    assert len(holds) + len(refusals) == count
    assert {each.reason for each in refusals} <= {ErrorReason.INSUFFICIENT_QUOTA}
    return holds, len(refusals)


async def withdraw(ledger: Ledger, database: Database, amount: int) -> None:
    """Withdraw from `acme` as operators do."""
    credit = partial(database.write, credit_account, "acme", -amount, "out", 0)
    await ledger.withdraw("acme", amount, credit)


@pytest.mark.parametrize("turns", range(8))
async def test_a_credit_while_an_account_is_loaded_counts_once(
    ledger: Ledger, database: SqliteDatabase, turns: int
) -> None:
    """Whether it comes before, with or after the first look at the account."""
    loading = asyncio.ensure_future(ledger.reserve(*order()))
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
    before, _ = await reserve_all(ledger, 3)
    withdrawing = asyncio.ensure_future(withdraw(ledger, database, 60))
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
        await withdraw(ledger, database, 60)

    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    more, _ = await reserve_all(ledger, 2)
    assert len(more) == 1
    for hold in (*holds, *more):
        ledger.void(hold)
    await ledger.drain()


async def test_a_hold_is_released_the_moment_its_call_ends(ledger: Ledger) -> None:
    """Before its end is in the database."""
    for _ in range(50):
        ledger.void(await ledger.reserve(*order(100)))


async def test_a_budget_is_kept_in_memory(ledger: Ledger) -> None:
    """Of calls at once, as many as it covers."""
    results = await asyncio.gather(
        *(ledger.reserve(*order(10, monthly=30)) for _ in range(6)), return_exceptions=True
    )

    holds = [result for result in results if isinstance(result, Hold)]
    reasons = {result.reason for result in results if isinstance(result, Failure)}
    assert (len(holds), reasons) == (3, {ErrorReason.BUDGET_EXCEEDED})
    for hold in holds:
        ledger.settle(hold, 5, Usage())
    assert isinstance(await ledger.reserve(*order(15, monthly=30)), Hold)
    with pytest.raises(Failure):
        await ledger.reserve(*order(1, monthly=30))
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
            await ledger.reserve(*order())
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
    await killed.reserve(*order())
    assert (tmp_path / FILES[0]).stat().st_size > 0
    assert (await database.read(audit)).counts["held"] == 0

    async with Ledger(database, clock):
        counts = (await database.read(audit)).counts

    assert (counts["held"], counts["voided"]) == (0, 1)
    assert [(tmp_path / name).stat().st_size for name in FILES] == [0, 0]


async def test_the_hold_of_a_short_call_is_written_once(
    tmp_path: Path, database: SqliteDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its end, while holds of longer calls stay in the journal until they are due."""
    monkeypatch.setattr(outbox, "HOLD_DELAY_S", 60.0)
    watched = WatchedDatabase(database)

    def states() -> Transaction[dict[object, object]]:
        rows = yield "SELECT id, state FROM holds", ()
        return {row[0]: row[1] for row in rows}

    def sizes() -> list[int]:
        return [(tmp_path / name).stat().st_size for name in FILES]

    async with Ledger(watched, clock) as ledger:
        long, short = await ledger.reserve(*order(1)), await ledger.reserve(*order(2))
        writes = watched.writes
        ledger.settle(short, 1, Usage())
        await ledger.drain_ends()

        assert watched.writes == writes + 1
        assert await database.read(states) == {short.id: "settled"}
        assert long.id in {hold.id for hold in database.hold_journal.read()}

        await ledger.drain_current()
        assert await database.read(states) == {short.id: "settled", long.id: "held"}
        assert sizes() == [0, 0]

        ledger.void(long)
        await ledger.drain()
        assert (await database.read(states))[long.id] == "voided"
        assert sizes() == [0, 0]


async def test_the_journal_is_emptied_after_the_last_call(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no further call brings a batch: its hold was written with its end."""
    monkeypatch.setattr(outbox, "HOLD_DELAY_S", 0.1)
    ledger.settle(await ledger.reserve(*order()), 1, Usage())
    await ledger.drain_ends()
    assert (tmp_path / FILES[0]).stat().st_size > 0

    while any((tmp_path / name).stat().st_size for name in FILES):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # The outbox announces nothing.


async def test_a_killed_process_loses_no_hold_beside_ended_ones(
    database: SqliteDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal has holds in flight, and some that were written with their ends."""
    monkeypatch.setattr(outbox, "HOLD_DELAY_S", 60.0)
    killed = await Ledger(database, clock).__aenter__()
    for charge in range(3):
        await killed.reserve(*order(5))
        killed.settle(await killed.reserve(*order(5)), charge, Usage())
        await killed.drain_ends()
    for task in killed._tasks:
        task.cancel()
    await asyncio.gather(*killed._tasks, return_exceptions=True)

    async with Ledger(database, clock):
        counts = (await database.read(audit)).counts

    assert (counts["held"], counts["voided"], counts["settled"]) == (0, 3, 3)
    assert await balance(database) == (97, 0)


async def balance(database: Database) -> tuple[int, int]:
    """Posted and held amount of `acme` in the database."""
    account = await database.read(account_by_name, "acme")
    assert account is not None
    return account.posted, account.held


async def free_in_memory(ledger: Ledger, database: Database) -> int:
    """The amount that calls can still take. Voids what it took to find out."""
    calls = [ledger.reserve(*order(1)) for _ in range(500)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    taken = [result for result in results if isinstance(result, Hold)]
    assert len(taken) < len(calls)
    for hold in taken:
        ledger.void(hold)
    await ledger.drain()
    return len(taken)


class HeldWrites:
    """Lets chosen transactions of a database begin only when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: SqliteDatabase) -> None:
        self.begun = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.held: object = write_holds
        """The function of the transactions."""
        self.passes = 0
        """Number of them that are let through before."""
        self._write, self._write_unsynced = database.write, database.write_unsynced
        monkeypatch.setattr(database, "write", partial(self._wait, self._write))
        monkeypatch.setattr(database, "write_unsynced", partial(self._wait, self._write_unsynced))

    async def _wait(self, write: Any, transaction: object, *args: Any, **kwargs: Any) -> Any:
        if transaction is self.held:
            self.passes -= 1
            if self.passes < 0:
                self.begun.set()
                await self.goes_on.wait()
        return await write(transaction, *args, **kwargs)


async def test_a_withdrawal_waits_for_holds_that_are_being_written(
    ledger: Ledger, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for those of a later batch of the same pass."""
    await database.write(credit_account, "acme", 200, "more", 0)
    writes = HeldWrites(monkeypatch, database)
    writes.passes = 1
    holds = [await ledger.reserve(*order(1)) for _ in range(300)]
    await writes.begun.wait()

    withdrawing = asyncio.ensure_future(withdraw(ledger, database, 100))
    await asyncio.sleep(0.05)
    writes.goes_on.set()
    with pytest.raises(Failure) as refused:
        await withdrawing

    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    for hold in holds:
        ledger.settle(hold, 1, Usage())
    await ledger.drain()
    assert await balance(database) == (0, 0)


async def test_a_checkpoint_waits_for_its_hold(
    ledger: Ledger, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold that is being written is not in the database yet."""
    writes = HeldWrites(monkeypatch, database)
    hold = await ledger.reserve(*order())
    await writes.begun.wait()
    ledger.checkpoint(hold, 7, Usage())
    await asyncio.sleep(HEARTBEAT_S * 1.5)
    writes.goes_on.set()
    await asyncio.sleep(HEARTBEAT_S * 1.5)

    def checkpoint() -> Transaction[Sequence[Row]]:
        return (yield "SELECT checkpoint FROM holds WHERE id = ?", (hold.id,))

    assert await database.read(checkpoint) == [(7,)]
    ledger.void(hold)
    await ledger.drain()


async def test_what_is_released_during_a_withdrawal_is_taken_once(
    ledger: Ledger, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the withdrawal or by a call, where less than its amount was free when it began."""
    first = await ledger.reserve(*order(60))
    await ledger.drain_current()
    writes = HeldWrites(monkeypatch, database)
    other = await ledger.reserve(*order(1))
    await writes.begun.wait()
    withdrawing = asyncio.ensure_future(withdraw(ledger, database, 60))
    await asyncio.sleep(0)
    ledger.void(first)
    calling = asyncio.ensure_future(ledger.reserve(*order(60)))
    await asyncio.sleep(0)
    writes.goes_on.set()

    results = await asyncio.gather(withdrawing, calling, return_exceptions=True)

    assert sum(isinstance(result, Failure) for result in results) == 1
    for hold in (other, *(each for each in results if isinstance(each, Hold))):
        ledger.settle(hold, hold.row.amount, Usage())
    await ledger.drain()
    assert (await balance(database))[0] == 39


async def test_a_call_waits_for_a_withdrawal_that_is_refused(
    ledger: Ledger, database: SqliteDatabase
) -> None:
    """A withdrawal of more than there is refuses no call."""
    await ledger.drain_current()
    withdrawing = asyncio.ensure_future(withdraw(ledger, database, 1000))
    await asyncio.sleep(0)

    hold = await ledger.reserve(*order(100))

    with pytest.raises(Failure):
        await withdrawing
    ledger.void(hold)
    await ledger.drain()


async def test_a_withdrawal_whose_caller_has_gone_is_still_decided(
    ledger: Ledger, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls do not take what it may still commit."""
    writes = HeldWrites(monkeypatch, database)
    writes.held = credit_account
    withdrawing = asyncio.ensure_future(withdraw(ledger, database, 60))
    await writes.begun.wait()
    withdrawing.cancel()
    await asyncio.gather(withdrawing, return_exceptions=True)
    calling = asyncio.ensure_future(ledger.reserve(*order(100)))
    await asyncio.sleep(0.05)
    writes.goes_on.set()

    with pytest.raises(Failure) as refused:
        await calling

    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    assert await balance(database) == (40, 0)


async def test_a_withdrawal_of_an_account_that_cannot_be_loaded_is_kept(
    ledger: Ledger, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls load it while the withdrawal is decided."""
    writes = HeldWrites(monkeypatch, database)
    writes.held = credit_account
    withdrawing = asyncio.ensure_future(withdraw(ledger, database, 60))
    await writes.begun.wait()
    calling = asyncio.ensure_future(ledger.reserve(*order(50)))
    await asyncio.sleep(0.05)
    assert not calling.done()
    writes.goes_on.set()
    await withdrawing
    with pytest.raises(Failure):
        await calling


@pytest.mark.parametrize("failing", [write_holds, end_holds])
async def test_a_bug_between_batches_loses_no_charge(
    database: SqliteDatabase,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    failing: object,
) -> None:
    """The restarted task goes on with what is left, also where holds end meanwhile."""
    await database.write(credit_account, "acme", 200, "more", 0)
    seen = 0
    ended = asyncio.Event()

    def fail_second(write: Any) -> Any:
        async def attempt(transaction: object, *args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            if transaction is failing:
                seen += 1
                if seen == 2:
                    ended.set()
                    raise RuntimeError("a bug")
            return await write(transaction, *args, **kwargs)

        return attempt

    monkeypatch.setattr(database, "write", fail_second(database.write))
    monkeypatch.setattr(database, "write_unsynced", fail_second(database.write_unsynced))
    async with Ledger(database, clock, supervisor=Supervisor(pause_s=0.05)) as ledger:
        holds = [await ledger.reserve(*order(1)) for _ in range(201)]
        if failing is write_holds:
            await ended.wait()
        else:
            await ledger.drain_current()
        for hold in holds:
            ledger.settle(hold, 1, Usage())
        await ledger.drain()
        assert await balance(database) == (99, 0)
        assert await free_in_memory(ledger, database) == 99


@pytest.mark.parametrize(("refusing", "then"), [(write_holds, (95, 0)), (end_holds, (95, 40))])
async def test_memory_follows_a_database_that_refuses_a_row(
    ledger: Ledger,
    database: SqliteDatabase,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    refusing: object,
    then: tuple[int, int],
) -> None:
    """A hold, or the end of one: what memory lets calls take is what the database has free."""
    poison = await ledger.reserve(*order(40))
    holds = [poison, await ledger.reserve(*order(10))]
    if refusing is end_holds:
        await ledger.drain_current()

    def refuse(write: Any) -> Any:
        async def attempt(transaction: object, *args: Any, **kwargs: Any) -> Any:
            if transaction is refusing and poison.id in str(args):
                raise ConstraintError("refused")
            return await write(transaction, *args, **kwargs)

        return attempt

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", refuse(database.write))
        patch.setattr(database, "write_unsynced", refuse(database.write_unsynced))
        await ledger.drain_current()
        for hold in holds:
            ledger.settle(hold, 5, Usage())
        await ledger.drain()
    assert await balance(database) == then
    assert await free_in_memory(ledger, database) == then[0] - then[1]

    clock.advance(100)
    await ledger.sweep()

    assert await balance(database) == (95, 0)
    assert await free_in_memory(ledger, database) == 95


async def test_a_journal_that_cannot_be_emptied_keeps_nothing_waiting(
    ledger: Ledger, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holds are in the database."""

    def truncate(_file: int, _size: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", truncate)
        for _ in range(8):
            ledger.settle(await ledger.reserve(*order()), 10, Usage())
            await ledger.drain()

    assert ledger.healthy
    assert len(ledger.outbox) == 0
    async with asyncio.timeout(5):
        await ledger.drain_current()
    assert await balance(database) == (20, 0)


async def test_the_journal_keeps_holds_that_end_during_a_batch(
    tmp_path: Path,
    ledger: Ledger,
    database: SqliteDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are not in the database before the next batch."""
    writes = HeldWrites(monkeypatch, database)
    first = await ledger.reserve(*order())
    await writes.begun.wait()
    ledger.void(await ledger.reserve(*order()))
    ledger.void(await ledger.reserve(*order()))

    writes.begun.clear()
    writes.goes_on.set()
    writes.goes_on.clear()
    await writes.begun.wait()

    assert sum((tmp_path / name).stat().st_size for name in FILES) > 0
    writes.goes_on.set()
    ledger.void(first)
    await ledger.drain()


async def test_a_call_that_ends_while_its_hold_is_written_is_charged(
    ledger: Ledger, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, after its hold."""
    writes = HeldWrites(monkeypatch, database)
    hold = await ledger.reserve(*order())
    await writes.begun.wait()
    ledger.settle(hold, 7, Usage())
    writes.goes_on.set()
    await ledger.drain()

    assert len(ledger.outbox) == 0
    assert await balance(database) == (93, 0)


async def test_an_amount_that_no_account_may_have_is_refused(
    ledger: Ledger, database: SqliteDatabase
) -> None:
    """Before it reaches the journal, also for an account without a limit."""
    await database.write(ensure_account, "big", 0, unlimited=True)

    with pytest.raises(Failure) as refused:
        await ledger.reserve(*order(2**63, account="big"))

    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    await ledger.drain()


async def test_a_number_beyond_64_bits_is_refused_by_the_database(
    database: SqliteDatabase,
) -> None:
    """As a value that breaks a constraint: a repetition would not help."""
    with pytest.raises(ConstraintError):
        await database.write(credit_account, "acme", -(2**64), "x", 0)
    await database.write(credit_account, "acme", 1, "y", 0)
