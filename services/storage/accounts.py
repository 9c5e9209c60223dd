"""Accounts, as statements: opening, terms, deposits and withdrawals."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.domain.error_reason import ErrorReason
from services.errors import Failure, invalid
from services.storage.balance_changes import BalanceChange, notify_balance
from services.storage.base import Row, Transaction, notify
from services.storage.ledger import DEPOSITS, insufficient

ENSURE = """
    INSERT INTO accounts (name, unlimited, markup_bp, created_ms) VALUES (?, ?, ?, ?)
    ON CONFLICT (name) DO NOTHING RETURNING name
"""
SELECT_ONE = (
    "SELECT name, unlimited, markup_bp, posted, held, created_ms FROM accounts WHERE name = ?"
)
SELECT_PAGE = """
    SELECT name, unlimited, markup_bp, posted, held, created_ms FROM accounts
    WHERE (created_ms, name) > (?, ?) ORDER BY created_ms, name LIMIT ?
"""
LOCK = "UPDATE accounts SET created_ms = created_ms WHERE name = ?"
SET_MARKUP = "UPDATE accounts SET markup_bp = ? WHERE name = ?"
DEPOSIT = """
    UPDATE accounts SET posted = posted + ? WHERE name = ? AND posted <= ? RETURNING name
"""
WITHDRAW = """
    UPDATE accounts SET posted = posted - ?
    WHERE name = ? AND posted >= ? AND (unlimited = 1 OR posted - held >= ?) RETURNING name
"""
CREDIT = """
    INSERT INTO transfers (id, debit, credit, amount, created_ms) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO NOTHING RETURNING id
"""
SELECT_CREDIT = "SELECT debit, credit, amount FROM transfers WHERE id = ?"

BALANCE_MAX = 2**60
"""Highest balance in nano-USD, and with a minus sign the lowest that a debit may leave: 1.15
billion dollars. Eight times as much would overflow the database's integers."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Account of a customer. Amounts are in nano-USD."""

    name: str
    """Unique, and never reused."""
    unlimited: bool
    """Whether calls are admitted without regard to the balance."""
    markup_bp: int
    """Markup on prices, in hundredths of a percent."""
    posted: int
    """Balance: deposits less charges."""
    held: int
    """Sum of the holds of in-flight calls."""
    created_ms: int
    """Time of creation."""


def ensure_account(
    name: str, now_ms: int, *, unlimited: bool = False, markup_bp: int = 0
) -> Transaction[bool]:
    """Open the account unless the name is in use. Return whether it was opened."""
    rows = yield ENSURE, (name, int(unlimited), markup_bp, now_ms)
    return bool(rows)


def lock_account(name: str) -> Transaction[None]:
    """Make other transactions that lock the account, or change it, wait for the end of this one."""
    yield LOCK, (name,)


def set_markup(name: str, markup_bp: int) -> Transaction[Account | None]:
    """Change the markup of an account. Return None if there is no such account."""
    yield SET_MARKUP, (markup_bp, name)
    # Processes cache keys together with the markup of their account.
    yield notify("")
    return (yield from account_by_name(name))


def account_by_name(name: str) -> Transaction[Account | None]:
    """Return the account with this name."""
    rows = yield SELECT_ONE, (name,)
    return _account(rows[0]) if rows else None


def list_accounts(limit: int, after: tuple[int, str]) -> Transaction[Sequence[Account]]:
    """Return at most `limit` accounts, oldest first, after the position (time, name)."""
    rows = yield SELECT_PAGE, (*after, limit)
    return [_account(row) for row in rows]


def credit_account(
    name: str, amount: int, request_id: str, now_ms: int
) -> Transaction[Account | None]:
    """Credit an account, or debit it by a negative amount, once per `request_id`.

    Return None if there is no such account. Raise Failure ALREADY_EXISTS if `request_id` was
    used for another credit, INVALID_FIELD if a credit exceeds `BALANCE_MAX`, INSUFFICIENT_QUOTA if
    a debit exceeds the free balance.
    """
    account = yield from account_by_name(name)
    if account is None or not amount:
        return account
    debit, credit = (DEPOSITS, name) if amount > 0 else (name, DEPOSITS)
    entry = (debit, credit, abs(amount))
    transfer_id = f"credit:{request_id}"
    made = yield CREDIT, (transfer_id, *entry, now_ms)
    if not made:
        rows = yield SELECT_CREDIT, (transfer_id,)
        if tuple(rows[0]) != entry:
            raise Failure(
                ErrorReason.ALREADY_EXISTS,
                "The request ID was used for another credit.",
                param="request_id",
            )
        return account
    if amount > 0:
        posted = yield DEPOSIT, (amount, name, BALANCE_MAX - amount)
        if not posted:
            raise _too_much()
    else:
        posted = yield WITHDRAW, (-amount, name, -amount - BALANCE_MAX, -amount)
        if not posted:
            raise insufficient()
    yield notify_balance(BalanceChange(account=name, posted=amount))
    return (yield from account_by_name(name))


def _too_much() -> Failure:
    message = f"The balance would exceed its maximum of {BALANCE_MAX} nano-USD."
    return invalid("amount_nano_usd", message)


def _account(row: Row) -> Account:
    fields = dict(zip(Account.__struct_fields__, row, strict=True))
    return msgspec.convert({**fields, "unlimited": bool(fields["unlimited"])}, Account)
