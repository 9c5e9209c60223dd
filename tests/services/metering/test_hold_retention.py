"""Retention of holds: their rows go, and every sum stays as it was, to the nano-dollar."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from services.common.plain_metrics import PlainMetrics
from services.domain.usage import Usage
from services.metering import hold_retention
from services.metering.hold_retention import HoldRetention
from services.metering.holds import Hold, HoldTerms
from services.metering.ledger import Ledger
from services.storage.account_sums import Credits, KeyCharges, PeriodStarts, credits_of, key_charges
from services.storage.accounts import credit_account, ensure_account
from services.storage.admitted_holds import write_holds
from services.storage.audit import audit
from services.storage.base import ConstraintError, Database, Transaction
from services.storage.call_charges import count_ended_holds
from services.storage.hold_ends import HoldEnd
from services.storage.hold_sums import OldHolds, forget_holds
from services.storage.keys import KeyScope, StoredKey, insert_key
from services.storage.ledger import HoldRow
from services.storage.opening import open_database
from services.storage.reports import Grouping, UsageSum, usage_by_model, usage_sums
from tests.stand.clock import FakeClock
from tests.stand.failing_database import WatchedDatabase

DAY_S = 86_400.0
KEEP_DAYS = 62
USD = 10**9
STARTS = PeriodStarts(total=0, day=0, week=0, month=0)
EVER = (0, 2**50)


class Reported(NamedTuple):
    """All that reports and the audit say about the account `acme`."""

    usage: dict[Grouping, list[UsageSum]]
    charges: list[KeyCharges | None]
    credits: Credits | None
    counts: dict[str, int]
    ended: int


async def reported(database: Database) -> Reported:
    """Return what is reported. The audit must find nothing."""
    result = await database.read(audit)
    assert result.findings == ()
    return Reported(
        usage={
            grouping: list(await database.read(usage_sums, "acme", grouping, EVER, 1000, (-1, "")))
            for grouping in Grouping
        },
        charges=[await database.read(key_charges, key, STARTS, "2027-01") for key in ("k1", "k2")],
        credits=await database.read(credits_of, "acme"),
        counts=dict(result.counts),
        ended=await database.read(count_ended_holds, 0),
    )


def rows_of_holds() -> Transaction[int]:
    """Return the number of rows of holds."""
    rows = yield "SELECT count(*) FROM holds", ()
    return int(str(rows[0][0]))


def put_account() -> Transaction[None]:
    """Insert the account with its keys and a balance."""
    yield from ensure_account("acme", 0)
    yield from credit_account("acme", 10 * USD, "r", 0)
    for key_id in ("k1", "k2"):
        key = StoredKey(
            id=key_id, account="acme", digest=key_id, prefix="", display_name="",
            scope=KeyScope(), created_ms=0,
        )  # fmt: skip
        yield from insert_key(key)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make batches small, without pauses."""
    monkeypatch.setattr(hold_retention, "BATCH_MAX", 3)
    monkeypatch.setattr(hold_retention, "PAUSE_S", 0.0)


@pytest.fixture
async def ledger(database: Database, clock: FakeClock) -> AsyncIterator[Ledger]:
    """A ledger whose account has a balance."""
    await database.write(put_account)
    async with Ledger(database, clock) as opened:
        yield opened


def retention(database: Database, clock: FakeClock, owner: str = "one") -> HoldRetention:
    """Return the retention of a process."""
    return HoldRetention(database, owner, clock, KEEP_DAYS, PlainMetrics("test"))


async def call(ledger: Ledger, charge: int, **changes: Any) -> Hold:
    """Make a call that is charged, or voided for a charge of -1."""
    fields = {"account": "acme", "key_id": "k1", "model": "a/b"}
    hold = await ledger.reserve(HoldTerms(**{**fields, **changes}), "r", 1000)
    if charge < 0:
        ledger.void(hold)
    else:
        ledger.settle(hold, charge, Usage(prompt_token_count=7, completion_token_count=charge % 5))
    return hold


async def busy_days(ledger: Ledger, clock: FakeClock) -> None:
    """Make calls of both keys on four days: charged, voided, overrun, extended, of a budget."""
    for day in range(4):
        for number in range(5):
            await call(ledger, 100 * day + number)
        await call(ledger, -1, key_id="k2")
        await call(ledger, 1700, key_id="k2", model="c/d")
        await call(ledger, 300, monthly_nano=USD)
        extended = await call_with_extension(ledger)
        assert (extended.id in ledger._open, ledger.open_holds) == (False, 0)
        clock.advance(DAY_S)
    await ledger.drain()


async def call_with_extension(ledger: Ledger) -> Hold:
    """Make a call that costs more than its hold, and extends it."""
    hold = await ledger.reserve(HoldTerms(account="acme", key_id="k1", model="a/b"), "r", 100)
    await ledger.extend(hold, 900)
    ledger.settle(hold, 1000, Usage(prompt_token_count=1))
    return hold


async def test_sums_stay_as_they_were(ledger: Ledger, database: Database, clock: FakeClock) -> None:
    """Reports, key totals, counts and the audit are the same after each batch, and in the end."""
    await busy_days(ledger, clock)
    before = await reported(database)
    first_day = int(clock.time() - 4 * DAY_S) // 86_400
    clock.advance((KEEP_DAYS - 1) * DAY_S)

    while await database.write(
        forget_holds, "one", OldHolds(before_ms=(first_day + 3) * 86_400_000, limit=2)
    ):
        assert await reported(database) == before

    left = await database.read(rows_of_holds)
    assert 0 < left < 4 * 10
    assert await retention(database, clock).forget() <= left
    assert await reported(database) == before
    clock.advance(5 * DAY_S)
    await retention(database, clock).forget()
    assert await database.read(rows_of_holds) == 0
    assert await reported(database) == before


async def test_later_calls_are_added_to_what_was_kept(
    ledger: Ledger, database: Database, clock: FakeClock
) -> None:
    """The same day, model and key may be carried forward in several parts."""
    await call(ledger, 5)
    held = await ledger.reserve(HoldTerms(account="acme", key_id="k1", model="a/b"), "r", 9)
    await ledger.drain_current()
    clock.advance((KEEP_DAYS + 2) * DAY_S)
    assert await retention(database, clock).forget() == 1
    ledger.settle(held, 8, Usage())
    await ledger.drain()
    clock.advance((KEEP_DAYS + 2) * DAY_S)
    assert await retention(database, clock).forget() == 1

    (usage,) = await database.read(usage_by_model, "acme", *EVER)
    assert (usage.calls, usage.charge) == (2, 13)
    assert (await database.read(audit)).findings == ()


async def test_a_day_counts_where_it_begins(
    ledger: Ledger, database: Database, clock: FakeClock
) -> None:
    """Time ranges beside each other count the calls of a day that was carried forward once."""
    await call(ledger, 5)
    await ledger.drain()
    noon_ms = int(clock.time()) // 86_400 * 86_400_000 + 43_200_000
    clock.advance((KEEP_DAYS + 2) * DAY_S)
    await retention(database, clock).forget()

    parts = [
        await database.read(usage_by_model, "acme", *span)
        for span in ((0, noon_ms), (noon_ms, EVER[1]))
    ]

    assert [[usage.charge for usage in part] for part in parts] == [[5], []]


async def test_one_process_at_a_time(ledger: Ledger, database: Database, clock: FakeClock) -> None:
    """A second process does nothing meanwhile, and takes over from one that is gone."""
    for number in range(7):
        await call(ledger, number)
    await ledger.drain()
    clock.advance((KEEP_DAYS + 2) * DAY_S)
    today = int(clock.time()) // 86_400
    old = OldHolds(before_ms=(today - KEEP_DAYS) * 86_400_000, limit=3)

    first = await database.write(forget_holds, "one", old)
    assert first is not None
    assert len(first) == 3
    assert await database.write(forget_holds, "two", old) is None
    assert await retention(database, clock, "two").forget() == 0
    await database.write(expire)
    assert await retention(database, clock, "two").forget() == 4


def expire() -> Transaction[None]:
    """Let the time of the process that deletes holds be over."""
    yield "UPDATE hold_retention SET until_ms = 1", ()


async def test_processes_that_start_together_delete_each_hold_once(
    ledger: Ledger, database: Database, clock: FakeClock
) -> None:
    """Their sums are right while calls go on."""
    await busy_days(ledger, clock)
    before = await database.read(usage_by_model, "acme", *EVER)
    clock.advance((KEEP_DAYS + 2) * DAY_S)

    async def calls() -> None:
        for _ in range(20):
            await call(ledger, 1, model="new")

    many = [retention(database, clock, f"owner-{number}").forget() for number in range(4)]
    forgotten, _ = await asyncio.gather(asyncio.gather(*many), calls())
    await ledger.drain()

    assert sum(forgotten) == sum(usage.calls for usage in before)
    (*earlier, new) = await database.read(usage_by_model, "acme", *EVER)
    assert earlier == list(before)
    assert (new.model, new.calls, new.charge) == ("new", 20, 20)
    assert (await database.read(audit)).findings == ()


async def test_a_hold_that_is_written_again_charges_nothing(
    ledger: Ledger, database: Database, clock: FakeClock
) -> None:
    """The transfer of its charge stays, so that a repeated write of its end is refused."""
    hold = await call(ledger, 5)
    await ledger.drain()
    before = await reported(database)
    clock.advance((KEEP_DAYS + 2) * DAY_S)
    await retention(database, clock).forget()

    with pytest.raises(ConstraintError):
        await write_end_again(database, hold.row)

    assert await reported(database) == before


async def write_end_again(database: Database, row: HoldRow) -> None:
    """Write a hold and its end as an outbox does after a lost confirmation."""
    end = HoldEnd(row, 5, Usage(), row.created_ms)
    await database.write(write_holds, [], [end])


async def test_the_audit_finds_what_the_sums_lack(
    ledger: Ledger, database: Database, clock: FakeClock
) -> None:
    """A sum that is changed by one, and a charge without a hold, are found."""
    await busy_days(ledger, clock)
    clock.advance((KEEP_DAYS + 10) * DAY_S)
    await retention(database, clock).forget()

    await database.write(change, "charge = charge + 1 WHERE model = 'c/d' AND day % 4 = 0")
    found = (await database.read(audit)).findings
    assert found == ("I3: charges differ from the sums of deleted holds: acme",)
    await database.write(change, "charge = charge - 1 WHERE model = 'c/d' AND day % 4 = 0")
    assert (await database.read(audit)).findings == ()
    await database.write(change, "charge = charge + 1 WHERE month <> ''")
    found = (await database.read(audit)).findings
    assert "I5: budget differs from the holds: k1" in found


def change(what: str) -> Transaction[None]:
    """Change the sums."""
    yield f"UPDATE hold_sums SET {what}", ()  # noqa: S608


async def test_a_hold_that_cannot_be_summed_up_stays(
    ledger: Ledger, database: Database, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps no other from being deleted, and is named."""
    for number in range(9):
        hold = await call(ledger, number)
        if number == 4:
            broken = hold.id
    await ledger.drain()
    await database.write(spoil, broken)
    clock.advance((KEEP_DAYS + 2) * DAY_S)

    process = retention(database, clock)
    assert await process.forget() == 8

    assert process.forgotten.value == 8
    assert await database.read(rows_of_holds) == 1
    (record,) = [each for each in caplog.records if each.message == "holds.not_forgotten"]
    assert vars(record)["hold_id"] == broken


def spoil(hold_id: str) -> Transaction[None]:
    """Give a hold more tokens than a sum may have."""
    yield f"UPDATE holds SET prompt_tokens = {2**62 + 1} WHERE id = ?", (hold_id,)  # noqa: S608


async def test_a_database_that_fails_is_asked_again(
    ledger: Ledger, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure, also of a confirmation, keeps the task running, and the next run goes on."""
    monkeypatch.setattr(hold_retention, "START_DELAY_S", 0.0)
    monkeypatch.setattr(hold_retention, "INTERVAL_S", 0.01)
    await busy_days(ledger, clock)
    before = await reported(database)
    clock.advance((KEEP_DAYS + 2) * DAY_S)
    failing = WatchedDatabase(database, lambda n: {1: "before", 3: "after"}.get(n, ""))
    task = asyncio.create_task(retention(failing, clock).run())
    try:
        while await database.read(rows_of_holds):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert failing.writes > 4
    assert await reported(database) == before


@pytest.mark.timeout(120)
async def test_a_kill_between_batches_loses_and_doubles_nothing(
    each_database_url: str, tmp_path: Path
) -> None:
    """Whatever a killed process has deleted is in the sums, and the next one goes on."""
    clock, state = FakeClock(), tmp_path / "state"
    database = await open_database(state, each_database_url, clock)
    await database.write(put_account)
    async with Ledger(database, clock) as ledger:
        for number in range(600):
            await call(ledger, number % 7, model=f"m{number % 3}")
    before, rows = await reported(database), await database.read(rows_of_holds)
    await database.close()
    program = Path(__file__).parent / "programs" / "forgetter.py"
    before_ms = (int(clock.time()) // 86_400 + 1) * 86_400_000
    where = each_database_url or str(state)
    for kill in range(4):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(program), where, str(before_ms), stdout=PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(10 + 20 * kill):
            await process.stdout.readline()
        process.kill()
        await process.communicate()
        database = await open_database(state, each_database_url, clock)
        left = await database.read(rows_of_holds)
        assert left < rows
        assert await reported(database) == before
        rows = left
        await database.close()
