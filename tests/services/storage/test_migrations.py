"""States of every earlier schema version: accounts, keys, holds and money stay as they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from services.domain.usage import Usage
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.storage.accounts import account_by_name, credit_account
from services.storage.audit import audit
from services.storage.hold_ends import recover_holds
from services.storage.keys import key_by_digest, revoke_key
from services.storage.opening import open_database
from services.storage.schema import BOOKS, VERSION
from tests.stand.clock import FakeClock

ROWS = """
INSERT INTO accounts (name, unlimited, markup_bp, posted, held, created_ms)
    VALUES ('acme', 0, 250, 970, 50, 1000);
INSERT INTO keys (id, account, digest, prefix, display_name, scope, created_ms)
    VALUES ('key-1', 'acme', 'd1', 'sk-pg-1', 'first', '{"models":["m"],"rpm":5}', 1000);
INSERT INTO holds (id, request_id, account, key_id, model, amount, price, month, owner, state,
        charge, created_ms, ended_ms)
    VALUES ('hold-1', 'r1', 'acme', 'key-1', 'm', 40, '{}', '2026-11', 'gone', 'settled', 30, 2000,
        3000);
INSERT INTO holds (id, request_id, account, key_id, model, amount, price, month, owner, state,
        checkpoint, created_ms)
    VALUES ('hold-2', 'r2', 'acme', 'key-1', 'm', 50, '{}', '2026-11', 'gone', 'held', 20, 4000);
INSERT INTO budgets (key_id, month, spent, held) VALUES ('key-1', '2026-11', 30, 50);
INSERT INTO transfers (id, debit, credit, amount, created_ms)
    VALUES ('invoice', ':deposits', 'acme', 1000, 1000);
INSERT INTO transfers (id, debit, credit, amount, created_ms)
    VALUES ('charge:hold-1', 'acme', ':revenue', 30, 3000)
"""
"""Rows of the tables of the first version: a call that was charged, and one whose process died."""


def statements(version: int, dialect: str) -> Sequence[str]:
    """Return the statements that make the tables of a version, and their rows."""
    tables = [each for batch in BOOKS.applied(version, dialect) for each in batch]
    return [*tables, *ROWS.strip().split(";\n")]


async def old_state(state: Path, url: str, version: int) -> None:
    """Make a state of a version."""
    if not url:
        old_file(state, version)
        return
    admin = await asyncpg.connect(url)
    await admin.execute(f"CREATE TABLE {BOOKS.version_table} (version BIGINT)")
    await admin.execute(f"INSERT INTO {BOOKS.version_table} VALUES ({version})")  # noqa: S608
    for statement in statements(version, "postgres"):
        await admin.execute(statement)
    await admin.close()


def old_file(state: Path, version: int) -> None:
    """Make a state of a version in SQLite."""
    state.mkdir(mode=0o700)
    with closing(sqlite3.connect(state / "pomogator.db")) as connection, connection:
        for statement in statements(version, "sqlite"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version:d}")


@pytest.mark.parametrize("version", range(1, VERSION))
async def test_a_state_of_an_earlier_version_is_used_on(
    tmp_path: Path, each_database_url: str, version: int
) -> None:
    """Its books are right, its key is valid, its dead call is recovered, and new calls are made."""
    clock, state = FakeClock(), tmp_path / "state"
    await old_state(state, each_database_url, version)

    database = await open_database(state, each_database_url, clock)

    assert (await database.read(audit)).findings == ()
    key = await database.read(key_by_digest, "d1")
    assert key is not None
    assert (key.account, key.scope.rpm, key.scope.models, key.markup_bp) == (
        "acme",
        5,
        frozenset({"m"}),
        250,
    )
    await database.write(recover_holds, ["hold-2"], 9000)
    await database.write(credit_account, "acme", 500, "invoice-2", 9000)
    async with Ledger(database, clock) as ledger:
        asked = (HoldTerms(account="acme", key_id="key-1", model="m"), "r3", 100)
        ledger.settle(await ledger.reserve(*asked), 7, Usage(prompt_token_count=1))
        await ledger.drain()
    await database.write(revoke_key, "key-1", 9000)
    account = await database.read(account_by_name, "acme")
    found = await database.read(audit)
    await database.close()
    assert account is not None
    assert (account.posted, account.held) == (1000 + 500 - 30 - 20 - 7, 0)
    assert found.findings == ()
    assert (found.counts["settled"], found.counts["recovered"]) == (2, 1)
