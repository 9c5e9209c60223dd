"""Recovery of holds, among holds that cannot be ended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.domain.usage import Usage
from services.metering import recovery
from services.metering.holds import HoldTerms
from services.metering.ledger import LOST_AFTER_S, Ledger
from services.metering.recovery import Recovery
from services.storage.accounts import account_by_name, ensure_account
from services.storage.base import Database, Transaction
from services.storage.ledger import HoldRow, insert_holds
from tests.stand.clock import FakeClock
from tests.stand.failing_database import WatchedDatabase


def run(sql: str) -> Transaction[None]:
    """Run a statement."""
    yield sql, ()


def open_ids() -> Transaction[list[str]]:
    """Return the IDs of open holds."""
    rows = yield "SELECT id FROM holds WHERE state = 'held' ORDER BY id", ()
    return [str(row[0]) for row in rows]


async def insert_orphaned(database: Database, *hold_ids: str) -> None:
    """Insert holds of 10 each, of a process without a lease."""
    for hold_id in hold_ids:
        row = HoldRow(
            id=hold_id,
            request_id="r",
            account="acme",
            key_id="k",
            model="m",
            amount=10,
            price="{}",
            month="",
            budget=0,
            owner="dead",
            created_ms=0,
        )
        await database.write(insert_holds, [row])


async def break_holds(database: Database, *hold_ids: str) -> None:
    """Set the amounts of holds above the held amount of their account."""
    for hold_id in hold_ids:
        await database.write(run, f"UPDATE holds SET amount = 1000000 WHERE id = '{hold_id}'")  # noqa: S608


@pytest.fixture
async def watched(database: Database) -> WatchedDatabase:
    await database.write(ensure_account, "acme", 0, unlimited=True)
    return WatchedDatabase(database)


async def test_a_broken_hold_is_found_by_bisection(watched: WatchedDatabase) -> None:
    """Of 256 holds all others are ended, in a few writes."""
    ids = [f"hold-{number:03}" for number in range(256)]
    await insert_orphaned(watched, *ids)
    await break_holds(watched, "hold-100")
    before = watched.writes
    sweeper = Recovery(watched)

    assert await sweeper.sweep([], 1) == 256

    assert await watched.read(open_ids) == ["hold-100"]
    assert (sweeper.recovered, sweeper.broken) == (255, 1)
    assert watched.writes - before == 2 + 1 + 2 * 8
    found = await watched.read(account_by_name, "acme")
    assert found is not None
    assert found.held == 10


@pytest.mark.parametrize("broken", [["a", "b", "c"], ["a", "b", "c", "d", "e"], ["y"]])
async def test_broken_holds_do_not_block_others(
    watched: WatchedDatabase, monkeypatch: pytest.MonkeyPatch, broken: Sequence[str]
) -> None:
    """Even with small sweeps all other holds end, and broken ones are not retried."""
    monkeypatch.setattr(recovery, "SWEEP_MAX", 2)
    await insert_orphaned(watched, *broken, "v", "w", "x")
    await break_holds(watched, *broken)
    sweeper = Recovery(watched)

    found = 0
    while new := await sweeper.sweep([], 1):
        found += new

    assert found == len(broken) + 3
    assert await watched.read(open_ids) == broken
    assert (sweeper.recovered, sweeper.broken) == (3, len(broken))


async def test_a_new_process_ends_a_repaired_hold(watched: WatchedDatabase) -> None:
    """A process does not retry a hold that it quarantined; after a repair a new process ends it."""
    await insert_orphaned(watched, "a")
    await break_holds(watched, "a")
    sweeper = Recovery(watched)
    assert await sweeper.sweep([], 1) == 1
    await watched.write(run, "UPDATE holds SET amount = 10 WHERE id = 'a'")

    assert await sweeper.sweep([], 1) == 0
    assert await Recovery(watched).sweep([], 1) == 1

    assert await watched.read(open_ids) == []


@pytest.mark.parametrize("end", ["settle", "void"])
async def test_a_refused_end_is_quarantined(
    watched: WatchedDatabase, clock: FakeClock, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    """An end that the database refuses, also in a sweep, blocks no other."""
    order = (HoldTerms(account="acme", key_id="k", model="m"), "r", 10)
    async with Ledger(watched, clock) as ledger:
        broken = await ledger.reserve(*order)
        other = await ledger.reserve(*order)
        await ledger.drain()
        await watched.write(run, "UPDATE accounts SET held = 10")
        for hold in (other, broken):
            if end == "settle":
                ledger.settle(hold, 7, Usage())
            else:
                ledger.void(hold)
        await ledger.drain()
        assert await watched.read(open_ids) == [broken.id]
        clock.advance(LOST_AFTER_S + 1)

        assert [await ledger.sweep() for _ in range(3)] == [1, 0, 0]

        assert (ledger.recovery.recovered, ledger.recovery.broken) == (0, 1)
        assert ledger.healthy
    told = [record.message for record in caplog.records if record.levelname != "INFO"]
    assert told == ["holds.refused", "hold.quarantined"]
    assert await watched.read(open_ids) == [broken.id]
