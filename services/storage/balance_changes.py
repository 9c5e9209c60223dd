"""Changes of balances that calls have not caused, as notices of the database.

A process that keeps balances in memory loads an account once, and applies each change after that.
"""

from __future__ import annotations

import msgspec

from services.storage.base import Statement, Transaction, notify

SELECT_ACCOUNT = "SELECT unlimited, posted, held FROM accounts WHERE name = ?"
SELECT_BUDGET = "SELECT spent, held FROM budgets WHERE key_id = ? AND month = ?"


class BalanceChange(msgspec.Struct, frozen=True, kw_only=True, tag="balance"):
    """Change of an account that its calls have not caused, for processes that keep it in memory."""

    account: str
    posted: int = 0
    """Added to the balance."""
    held: int = 0
    """Added to the held amount."""
    loaded: bool = False
    """Whether this is the mark of `load_account`: the changes after it are not in its result."""


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True, tag="budget"):
    """The same of a key's budget."""

    key_id: str
    month: str
    spent: int = 0
    held: int = 0
    loaded: bool = False


_CHANGES = msgspec.json.Decoder(BalanceChange | BudgetChange)


def notify_balance(change: BalanceChange | BudgetChange) -> Statement:
    """Return the statement that notifies the process of a change after the commit."""
    return notify(msgspec.json.encode(change).decode())


def read_change(payload: str) -> BalanceChange | BudgetChange | None:
    """Return the change in the payload of a notice. None: it is another notice."""
    return _CHANGES.decode(payload) if payload.startswith("{") else None


def load_account(name: str) -> Transaction[tuple[bool, int, int] | None]:
    """Return whether the account is unlimited, its balance and held amount; None without it.

    A notice marks the moment, for the order of changes. Use it in a writing transaction.
    """
    rows = yield SELECT_ACCOUNT, (name,)
    yield notify_balance(BalanceChange(account=name, loaded=True))
    return msgspec.convert(rows[0], tuple[bool, int, int], strict=False) if rows else None


def load_budget(key_id: str, month: str) -> Transaction[tuple[int, int]]:
    """Return what is spent and held of a budget. See `load_account`."""
    rows = yield SELECT_BUDGET, (key_id, month)
    yield notify_balance(BudgetChange(key_id=key_id, month=month, loaded=True))
    return msgspec.convert(rows[0], tuple[int, int]) if rows else (0, 0)
