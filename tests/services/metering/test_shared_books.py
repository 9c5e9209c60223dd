"""Admission of holds by a database that several processes share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from services.metering import outbox, shared_books
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.storage.accounts import account_by_name, credit_account, ensure_account
from services.storage.audit import audit
from services.storage.base import Database
from services.storage.opening import open_database
from services.storage.postgres import COMMAND_TIMEOUT_S
from tests.stand.clock import FakeClock

LOCK = "SELECT 1 FROM accounts WHERE name = $1 FOR UPDATE"


@pytest.fixture
async def database(postgres_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """Two accounts with money."""
    database = await open_database(tmp_path, postgres_url, FakeClock())
    for account in ("acme", "other"):
        await database.write(ensure_account, account, 0)
        await database.write(credit_account, account, 1000, account, 0)
    yield database
    assert (await database.read(audit)).findings == ()
    await database.close()


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with Ledger(database, FakeClock()) as ledger:
        yield ledger


@pytest.fixture
async def other_session(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another program's session."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


def order(account: str = "acme", amount: int = 10) -> tuple[HoldTerms, str, int]:
    """A hold of a call of an account: its terms, the request and the amount."""
    return HoldTerms(account=account, key_id="k", model="m"), "r", amount


async def held(database: Database, account: str) -> int:
    """The held amount of an account."""
    found = await database.read(account_by_name, account)
    assert found is not None
    return found.held


async def test_a_locked_account_delays_no_other(
    ledger: Ledger, database: Database, other_session: asyncpg.Connection
) -> None:
    """Calls of other accounts are admitted while it stays locked, also those of the same turn."""
    async with other_session.transaction():
        await other_session.execute(LOCK, "acme")
        stuck = [asyncio.ensure_future(ledger.reserve(*order())) for _ in range(20)]
        for _ in range(20):
            # More turns than connections.
            admitted = await asyncio.gather(*(ledger.reserve(*order("other")) for _ in range(2)))
            stuck.append(asyncio.ensure_future(ledger.reserve(*order())))
            for hold in admitted:
                ledger.void(hold)
        assert not any(task.done() for task in stuck)
    holds = await asyncio.gather(*stuck)
    await ledger.drain()

    assert (await held(database, "acme"), await held(database, "other")) == (400, 0)
    for hold in holds:
        ledger.void(hold)
    await ledger.drain()


async def test_calls_of_a_locked_account_take_one_connection(
    ledger: Ledger, other_session: asyncpg.Connection
) -> None:
    """However many turns they come in."""
    async with other_session.transaction():
        await other_session.execute(LOCK, "acme")
        stuck = []
        for _ in range(10):
            stuck.append(asyncio.ensure_future(ledger.reserve(*order())))
            await asyncio.sleep(0.01)
        waiting = await other_session.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        )
        assert waiting == 1
    for hold in await asyncio.gather(*stuck):
        ledger.void(hold)
    await ledger.drain()


async def test_a_locked_account_is_refused_after_the_command_timeout(
    ledger: Ledger, other_session: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its later calls are decided."""
    monkeypatch.setattr("services.storage.postgres.COMMAND_TIMEOUT_S", COMMAND_TIMEOUT_S / 25)
    async with other_session.transaction():
        await other_session.execute(LOCK, "acme")
        outcomes = await asyncio.gather(
            *(ledger.reserve(*order()) for _ in range(3)), return_exceptions=True
        )
        assert {type(outcome).__name__ for outcome in outcomes} == {"Failure"}

    ledger.void(await ledger.reserve(*order()))
    await ledger.drain()


@pytest.mark.parametrize("lock_timeout_s", [0.0, 0.05])
async def test_a_cancelled_call_that_waits_for_a_lock_leaves_no_hold(
    ledger: Ledger,
    database: Database,
    other_session: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    lock_timeout_s: float,
) -> None:
    """Its hold is committed long after it was cancelled, and voided after that."""
    monkeypatch.setattr(outbox, "BATCH_DELAY_S", 0.0)
    monkeypatch.setattr(shared_books, "LOCK_TIMEOUT_S", lock_timeout_s)
    async with other_session.transaction():
        await other_session.execute(LOCK, "acme")
        stuck = [asyncio.ensure_future(ledger.reserve(*order())) for _ in range(3)]
        apart = asyncio.ensure_future(ledger.reserve(*order("other")))
        await asyncio.sleep(0.2)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        await asyncio.sleep(0.1)  # The outbox writes what it has.
    ledger.void(await apart)
    await ledger.drain()

    assert (await held(database, "acme"), await held(database, "other")) == (0, 0)
    assert (await database.read(audit)).counts["held"] == 0
