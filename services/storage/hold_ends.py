"""Ends of holds: SQL and transactions that charge and release them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec

from services.domain.usage import Usage
from services.storage.balance_changes import BalanceChange, BudgetChange, notify_balance
from services.storage.base import ConstraintError, Row, Transaction, Value, Values
from services.storage.ledger import REVENUE, HoldRow

SETTLED = "settled"
VOIDED = "voided"
"""States of a hold that its own process ended: charged, or released without a charge. The holds of
a dead process are ended by another process (RECOVER_HOLD)."""

CHECKPOINT = """
    UPDATE holds SET checkpoint = ?, source = ?, prompt_tokens = ?, completion_tokens = ?,
        thinking_tokens = ?, cache_read_tokens = ?, cache_write_tokens = ?
    WHERE id = ? AND state = 'held'
"""
END_HOLD = """
    UPDATE holds SET state = ?, charge = ?, overrun = CASE WHEN ? > amount THEN ? - amount ELSE 0
        END, source = ?, prompt_tokens = ?, completion_tokens = ?, thinking_tokens = ?,
        cache_read_tokens = ?, cache_write_tokens = ?, ended_ms = ?
    WHERE id = ? AND state = 'held'
"""
RECOVER_HOLD = """
    UPDATE holds SET state = CASE WHEN checkpoint IS NULL THEN 'voided' ELSE 'recovered' END,
        charge = COALESCE(checkpoint, 0),
        overrun = CASE WHEN checkpoint > amount THEN checkpoint - amount ELSE 0 END, ended_ms = ?
    WHERE id = ? AND state = 'held' RETURNING account, amount, key_id, month, charge
"""
RELEASE_TO_ACCOUNT = "UPDATE accounts SET posted = posted - ?, held = held - ? WHERE name = ?"
RELEASE_TO_BUDGET = """
    UPDATE budgets SET spent = spent + ?, held = held - ? WHERE key_id = ? AND month = ?
"""
TRANSFER = """
    INSERT INTO transfers (id, debit, credit, amount, created_ms) VALUES (?, ?, ?, ?, ?)
"""
SELECT_ORPHANS = """
    SELECT id FROM holds WHERE state = 'held' AND owner NOT IN (SELECT owner FROM leases) LIMIT ?
"""
SELECT_OWNED = "SELECT id FROM holds WHERE state = 'held' AND owner = ? AND created_ms < ?"


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """Usage of an in-flight call so far."""

    hold_id: str
    """ID of the hold."""
    charge: int
    """Charge if the call ended now, in nano-USD."""
    usage: Usage | None
    """Tokens so far. None: none."""


class HoldEnd(msgspec.Struct, frozen=True, gc=False):
    """End of a hold: settled with a charge, or voided."""

    hold: HoldRow
    """The hold. Its process need not read the row again: the amounts never change."""
    charge: int
    """In nano-USD."""
    usage: Usage | None
    """Tokens of the call. None: the hold is voided."""
    ended_ms: int
    """Time of the end."""
    extensions: tuple[HoldRow, ...] = ()
    """Extensions of the hold. They end in the same transaction, without a charge of their own."""

    @property
    def state(self) -> str:
        """State of the hold in the database."""
        return VOIDED if self.usage is None else SETTLED


def end_holds(hold_ends: Sequence[HoldEnd]) -> Transaction[list[bool]]:
    """End each hold that has not ended. Return for each whether this call ended it."""
    ended_here: list[bool] = []
    releases = Releases()
    for hold_end in hold_ends:
        hold, charge = hold_end.hold, hold_end.charge
        uncovered = charge - sum(each.amount for each in hold_end.extensions)
        ended = yield (
            END_HOLD,
            (
                hold_end.state, charge, uncovered, uncovered, *token_values(hold_end.usage),
                hold_end.ended_ms, hold.id,
            ),
        )  # fmt: skip
        ended_here.append(bool(ended))
        if ended:
            releases.add(hold.account, hold.amount, hold.key_id, hold.month, charge)
            if charge:
                yield TRANSFER, charge_values(hold.id, hold.account, charge, hold_end.ended_ms)
            yield from _release_extensions(hold_end, releases)
    yield from releases.apply()
    return ended_here


def _release_extensions(hold_end: HoldEnd, releases: Releases) -> Transaction[None]:
    for hold in hold_end.extensions:
        values = (VOIDED, 0, 0, 0, *token_values(None), hold_end.ended_ms, hold.id)
        ended = yield END_HOLD, values
        if ended:
            releases.add(hold.account, hold.amount, hold.key_id, hold.month, 0)


def recover_holds(hold_ids: Sequence[str], now_ms: int) -> Transaction[int]:
    """End holds at their last checkpoint, for processes that no longer can. Return how many.

    Raise ConstraintError if a row is not as `insert_hold` left it.
    """
    recovered = 0
    releases = Releases()
    for hold_id in hold_ids:
        rows = yield RECOVER_HOLD, (now_ms, hold_id)
        if not rows:
            continue
        recovered += 1
        account, amount, key_id, month, charge = _recovered(rows[0])
        releases.add(account, amount, key_id, month, charge)
        yield notify_balance(BalanceChange(account=account, posted=-charge, held=-amount))
        if month:
            change = BudgetChange(key_id=key_id, month=month, spent=charge, held=-amount)
            yield notify_balance(change)
        if charge:
            yield TRANSFER, charge_values(hold_id, account, charge, now_ms)
    yield from releases.apply()
    return recovered


def charge_values(hold_id: str, account: str, charge: int, now_ms: int) -> Values:
    """Return the parameters of `TRANSFER` for a charge."""
    return f"charge:{hold_id}", account, REVENUE, charge, now_ms


_Nano: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_RecoveredHold: TypeAlias = tuple[str, _Nano, str, str, _Nano]
"""Account, amount, key, month of the budget, and charge of a recovered hold."""


def _recovered(row: Row) -> _RecoveredHold:
    try:
        recovered: _RecoveredHold = msgspec.convert(row, _RecoveredHold)
    except msgspec.ValidationError as error:
        # SQLite stores any type in any column.
        raise ConstraintError(str(error)) from error
    return recovered


class Releases:
    """Released amounts of a batch of holds, summed up: one statement per account and budget."""

    __slots__ = ("_accounts", "_budgets")

    def __init__(self) -> None:
        self._accounts: dict[str, tuple[int, int]] = {}
        self._budgets: dict[tuple[str, str], tuple[int, int]] = {}

    def add(self, account: str, amount: int, key_id: str, month: str, charge: int) -> None:
        """Add a hold of `amount` that has ended with `charge`."""
        charged, held = self._accounts.get(account, (0, 0))
        self._accounts[account] = (charged + charge, held + amount)
        if month:
            charged, held = self._budgets.get((key_id, month), (0, 0))
            self._budgets[key_id, month] = (charged + charge, held + amount)

    def apply(self) -> Transaction[None]:
        """Update accounts and budgets in the order of their names, which avoids deadlocks."""
        for account, (charge, amount) in sorted(self._accounts.items()):
            yield from update_existing(RELEASE_TO_ACCOUNT, charge, amount, account)
        for (key_id, month), (charge, amount) in sorted(self._budgets.items()):
            yield from update_existing(RELEASE_TO_BUDGET, charge, amount, key_id, month)


def update_existing(sql: str, *values: Value) -> Transaction[None]:
    """Update a row that must exist."""
    changed = yield sql, values
    if not changed:
        raise ConstraintError("the account or budget does not exist")


def write_checkpoints(checkpoints: Sequence[Checkpoint]) -> Transaction[None]:
    """Store the usage of in-flight calls so far, which is charged if their process dies."""
    for point in checkpoints:
        yield CHECKPOINT, (point.charge, *token_values(point.usage), point.hold_id)


def orphaned_holds(limit: int) -> Transaction[list[str]]:
    """Return at most `limit` open holds whose process has no lease."""
    rows = yield SELECT_ORPHANS, (limit,)
    return [str(row[0]) for row in rows]


def owned_holds(owner: str, before_ms: int) -> Transaction[list[str]]:
    """Return the open holds that a process took before a time."""
    rows = yield SELECT_OWNED, (owner, before_ms)
    return [str(row[0]) for row in rows]


def token_values(usage: Usage | None) -> tuple[str, int, int, int, int, int]:
    """Return the tokens of a usage in the order of their columns."""
    if usage is None:
        return "", 0, 0, 0, 0, 0
    return (
        usage.source, usage.prompt_token_count, usage.completion_token_count,
        usage.thinking_token_count, usage.cache_read_token_count, usage.cache_write_token_count,
    )  # fmt: skip
