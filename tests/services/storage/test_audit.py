"""The audit and credits near the edges of the database's integers, on each kind of database."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from services.errors import Failure
from services.storage.accounts import (
    BALANCE_MAX,
    account_by_name,
    credit_account,
    ensure_account,
)
from services.storage.audit import audit
from services.storage.base import Database, Statement, Transaction
from services.storage.ledger import REVENUE
from services.storage.sqlite import SqliteDatabase
from services.storage.sqlite_file import FILE
from tests.stand.clock import FakeClock

INT64_MAX = 2**63 - 1
EDGES = [1, 2**30 - 1, 2**30, 2**30 + 1, 2**53, 2**53 + 1, 2**60, 2**62, INT64_MAX]

TRANSFER = "INSERT INTO transfers (id, debit, credit, amount, created_ms) VALUES (?, ?, ?, ?, 0)"
SET_POSTED = "UPDATE accounts SET posted = ? WHERE name = ?"
HOLD = """
    INSERT INTO holds (id, request_id, account, key_id, model, amount, price, month, owner, state,
        created_ms) VALUES (?, 'r', ?, 'k', 'm', ?, '{}', '', 'o', 'held', 0)
"""


def run(statements: Sequence[Statement]) -> Transaction[None]:
    """Run statements."""
    for statement in statements:  # noqa: UP028 - a list receives no rows
        yield statement


async def findings(database: Database) -> set[str]:
    """Return the findings of an audit."""
    return set((await database.read(audit)).findings)


async def test_balances_near_the_edges_are_exact(database: Database) -> None:
    """The audit finds a balance that is off by one, at any size, and no other."""
    chance = random.Random(17)  # noqa: S311 - the same in each run
    wrong = set()
    for number in range(40):
        name = f"a{number}"
        await database.write(ensure_account, name, 0)
        signed = [
            chance.choice((1, -1)) * chance.choice(EDGES) for _ in range(chance.randrange(1, 7))
        ]
        statements: list[Statement] = [
            (TRANSFER, (f"credit:{name}-{index}", *_sides(name, amount), abs(amount)))
            for index, amount in enumerate(signed)
        ]
        off = chance.choice((0, 0, 1, -1, 2**30, -(2**33)))
        posted = max(-INT64_MAX - 1, min(INT64_MAX, sum(signed) + off))
        if posted != sum(signed):
            wrong.add(f"I1: balance differs from the transfers: {name}")
        if posted < 0:
            wrong.add(f"I2: spent more than there was: {name}")
        await database.write(run, [*statements, (SET_POSTED, (posted, name))])

    found = await database.read(audit)
    kinds = {finding.rpartition(": ")[0] for finding in wrong}
    assert set(found.findings) <= wrong
    for kind in kinds:
        expected = {finding for finding in wrong if finding.startswith(kind)}
        assert len(expected & set(found.findings)) == min(20, len(expected))


async def test_a_part_of_a_charge_that_is_given_back_without_a_hold_is_found(
    database: Database,
) -> None:
    """By its ID, although the balance is the sum of the transfers."""
    await database.write(ensure_account, "acme", 0)
    given_back: Statement = (TRANSFER, ("charge-hold-none", REVENUE, "acme", 7))
    await database.write(run, [given_back, (SET_POSTED, (7, "acme"))])

    assert await findings(database) == {"I3: charge without a hold: charge-hold-none"}


def _sides(name: str, amount: int) -> tuple[str, str]:
    return (":deposits", name) if amount > 0 else (name, ":deposits")


async def test_sums_beyond_the_integers_are_found(database: Database) -> None:
    """Transfers and holds whose sum does not fit: the audit survives, and names the account."""
    for name in ("rich", "poor"):
        await database.write(ensure_account, name, 0)
    many: list[Statement] = [
        (TRANSFER, (f"credit:{index}", ":deposits", "rich", INT64_MAX)) for index in range(20)
    ]
    many += [(HOLD, (f"h{index}", "rich", INT64_MAX)) for index in range(20)]
    await database.write(run, many)

    assert await findings(database) == {
        "I1: balance differs from the transfers: rich",
        "I1: held differs from the holds: rich",
    }


async def test_values_that_are_no_integers_are_found(database: Database) -> None:
    """SQLite stores any type in any column. The audit names such rows."""
    if not isinstance(database, SqliteDatabase):
        return
    for name in ("text", "real", "infinite", "bytes", "good"):
        await database.write(ensure_account, name, 0)
    statements: list[Statement] = [
        ("UPDATE accounts SET posted = 'x' WHERE name = 'text'", ()),
        ("UPDATE accounts SET held = 9.3e18 WHERE name = 'real'", ()),
        ("UPDATE accounts SET posted = 9e999 WHERE name = 'infinite'", ()),
        ("UPDATE accounts SET posted = x'00ff' WHERE name = 'bytes'", ()),
        ("INSERT INTO transfers VALUES ('credit:t', ':deposits', 'good', 'much', 0)", ()),
        ("INSERT INTO budgets VALUES ('key-1', '2026-11', 'x', 9e999)", ()),
    ]  # fmt: skip
    await database.write(run, statements)

    found = await findings(database)
    for name in ("text", "real", "infinite", "bytes"):
        assert f"I0: not a whole number in accounts: {name}" in found
    assert "I0: not a whole number in transfers: credit:t" in found
    assert "I0: not a whole number in budgets: key-1" in found
    assert not any(finding.endswith("good") for finding in found)


async def test_a_balance_has_a_maximum(database: Database) -> None:
    """A credit beyond it is refused with the maximum, and leaves no trace."""
    await database.write(ensure_account, "acme", 0)
    await database.write(credit_account, "acme", BALANCE_MAX, "first", 0)
    for number, amount in enumerate((1, 2**30, BALANCE_MAX)):
        with pytest.raises(Failure, match=str(BALANCE_MAX)) as refused:
            await database.write(credit_account, "acme", amount, f"more-{number}", 0)
        assert refused.value.param == "amount_nano_usd"

    again = await database.write(credit_account, "acme", BALANCE_MAX, "first", 0)
    assert again is not None
    assert again.posted == BALANCE_MAX
    assert await findings(database) == set()


async def test_credits_and_debits_never_leave_the_range(database: Database) -> None:
    """Any sequence of them keeps books that the audit finds right."""
    chance = random.Random(5)  # noqa: S311 - the same in each run
    amounts = [amount for amount in EDGES if amount <= BALANCE_MAX]
    balances = {"rich": 0, "poor": 0}
    for name in balances:
        await database.write(ensure_account, name, 0, unlimited=name == "rich")
    for number in range(120):
        name, amount = chance.choice(["rich", "poor"]), chance.choice(amounts)
        signed = chance.choice((1, -1)) * amount
        expected = balances[name] + signed
        least = -BALANCE_MAX if name == "rich" else 0
        if least <= expected <= BALANCE_MAX:
            await database.write(credit_account, name, signed, f"r{number}", 0)
            balances[name] = expected
        else:
            with pytest.raises(Failure):
                await database.write(credit_account, name, signed, f"r{number}", 0)
        account = await database.read(account_by_name, name)
        assert account is not None
        assert account.posted == balances[name]

    assert await findings(database) == set()


COLUMNS = "SELECT name FROM pragma_table_info(?) WHERE type = 'TEXT'"
DAMAGED = "CAST(x'61ff' AS TEXT)"


@pytest.mark.parametrize("table", ["accounts", "transfers", "holds"])
async def test_text_that_is_not_utf_8_is_no_obstacle(tmp_path: Path, table: str) -> None:
    """The audit goes on, and its findings name such rows as far as they can be read."""
    database = await SqliteDatabase.open(tmp_path, FakeClock())
    try:
        await database.write(ensure_account, "a", 0)
        await database.write(run, [(TRANSFER, ("credit:1", ":deposits", "a", 5))])
        await database.write(run, [(HOLD, ("h", "a", 3)), (SET_POSTED, (7, "a"))])
        assert await findings(database)

        assert damage(tmp_path / FILE, table) > 0

        assert await findings(database)
    finally:
        await database.close()


def damage(file: Path, table: str) -> int:
    """Damage texts of a table as another program may. Return the number of columns."""
    with closing(sqlite3.connect(file)) as other:
        columns = [name for (name,) in other.execute(COLUMNS, (table,))]
        for (trigger,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            other.execute(f"DROP TRIGGER {trigger}")
        done = 0
        for column in columns:
            with suppress(sqlite3.IntegrityError):
                other.execute(f"UPDATE {table} SET {column} = {DAMAGED}")  # noqa: S608
                done += 1
        other.commit()
    return done
