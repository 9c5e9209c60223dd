"""Sums over the whole history of a key or an account, as statements."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from services.storage.accounts import Account, account_by_name
from services.storage.base import Transaction
from services.storage.exact_sums import read_sums, sum_columns
from services.storage.hold_sums import DAY_MS
from services.storage.keys import StoredKey, key_by_id
from services.storage.ledger import DEPOSITS, REVENUE

_CHARGE_SINCE = "CASE WHEN created_ms >= ? THEN charge ELSE 0 END"
CHARGES_OF_KEY = f"""
    SELECT {sum_columns(*[_CHARGE_SINCE] * 4)} FROM (
        SELECT created_ms, charge FROM holds
        WHERE account = ? AND key_id = ? AND state <> 'held'
        UNION ALL
        SELECT day * {DAY_MS}, charge FROM hold_sums WHERE account = ? AND key_id = ?
    ) AS ended
"""  # noqa: S608  Constants of this module.
SELECT_BUDGET = "SELECT spent, held FROM budgets WHERE key_id = ? AND month = ?"
# With the conditions of the indexes on transfers.
CREDITED = f"""
    SELECT {sum_columns("amount")} FROM transfers
    WHERE credit = ? AND credit <> '{REVENUE}' AND debit <> '{REVENUE}'
"""  # noqa: S608  What comes from the revenue is a part of a charge, given back.
DEBITED = f"""
    SELECT {sum_columns("amount")} FROM transfers
    WHERE debit = ? AND debit <> '{DEPOSITS}' AND credit = '{DEPOSITS}'
"""  # noqa: S608


class PeriodStarts(NamedTuple):
    """Beginnings of the periods of a report, in milliseconds since 1970."""

    total: int
    day: int
    week: int
    month: int


class KeyCharges(msgspec.Struct, frozen=True, kw_only=True):
    """A key and its charges, in nano-USD."""

    key: StoredKey
    total: int
    day: int
    week: int
    month: int
    budget_used: int
    """Spent and held of the budget of the month. 0 without a budget."""


class Credits(msgspec.Struct, frozen=True, kw_only=True):
    """An account and the sums of its transfers, in nano-USD."""

    account: Account
    credited: int
    """Credits less debits by operators."""
    charged: int
    """Charges for calls."""


def key_charges(key_id: str, starts: PeriodStarts, month: str) -> Transaction[KeyCharges | None]:
    """Return a key with its charges in ended calls since each of `starts`, None without it."""
    key = yield from key_by_id(key_id)
    if key is None:
        return None
    times = [start for start in starts for _ in range(2)]
    rows = yield CHARGES_OF_KEY, (*times, *(key.account, key_id) * 2)
    total, day, week, monthly = read_sums(rows[0])
    used = yield SELECT_BUDGET, (key_id, month)
    return KeyCharges(
        key=key,
        total=total,
        day=day,
        week=week,
        month=monthly,
        budget_used=sum(msgspec.convert(list(used[0]), list[int])) if used else 0,
    )


def credits_of(name: str) -> Transaction[Credits | None]:
    """Return an account with the sums of its transfers, None without it."""
    account = yield from account_by_name(name)
    if account is None:
        return None
    credited = yield from _sum(CREDITED, name)
    debited = yield from _sum(DEBITED, name)
    net = credited - debited
    return Credits(account=account, credited=net, charged=net - account.posted)


def _sum(statement: str, account: str) -> Transaction[int]:
    rows = yield statement, (account,)
    (total,) = read_sums(rows[0])
    return total
