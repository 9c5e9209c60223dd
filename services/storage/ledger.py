"""Holds: SQL and transactions that take them. `services.metering.ledger` runs them.

`services.storage.hold_ends` ends them, `services.storage.audit` checks the invariants of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.base import Transaction, Values

REVENUE = ":revenue"
"""The gateway's account that charges are credited to."""

DEPOSITS = ":deposits"
"""The gateway's account that deposits are debited from."""

INSERT_HOLD = """
    INSERT INTO holds
        (id, request_id, account, key_id, model, amount, price, month, owner, state, created_ms,
        extends)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'held', ?, ?)
"""
LOCK_TIMEOUT = "SELECT set_config('lock_timeout', ?, TRUE)"
"""For one transaction. Only in PostgreSQL."""

HOLD_ON_ACCOUNT = """
    UPDATE accounts SET held = held + ?
    WHERE name = ? AND (unlimited = 1 OR posted - held >= ?)
"""
OPEN_BUDGET = """
    INSERT INTO budgets (key_id, month) VALUES (?, ?) ON CONFLICT (key_id, month) DO NOTHING
"""
HOLD_ON_BUDGET = """
    UPDATE budgets SET held = held + ?
    WHERE key_id = ? AND month = ? AND spent + held + ? <= ?
"""
ADD_TO_ACCOUNT = "UPDATE accounts SET held = held + ? WHERE name = ?"


class HoldRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold as it is stored, from before anything is sent upstream."""

    id: str
    """Unique."""
    request_id: str
    """Request ID in logs and answers. Callers may choose it, so it need not be unique."""
    account: str
    """Account that pays."""
    key_id: str
    """Key of the caller."""
    model: str
    """Public model."""
    amount: int
    """Amount held, in nano-USD."""
    price: str
    """Price in force at admission, as JSON."""
    month: str
    """Month of the budget, such as `2026-11`. Empty: the key has no budget."""
    budget: int
    """Monthly budget of the key, in nano-USD."""
    owner: str
    """Process that is to end the hold."""
    created_ms: int
    """Time of creation."""
    extends: str = ""
    """ID of the hold that this one extends. Empty: it is the first of its call."""


def insert_holds(
    holds: Sequence[HoldRow], lock_timeout_s: float = 0.0
) -> Transaction[list[Failure | None]]:
    """Take the holds that balances and budgets allow. Return the refusal of each of the others.

    INSUFFICIENT_QUOTA or BUDGET_EXCEEDED. Conditional UPDATEs decide, so that concurrent requests,
    of this and of other processes, never hold more than the balance. In PostgreSQL `lock_timeout_s`
    limits the wait for a locked row, after which LockedError is raised.
    """
    refusals: dict[str, Failure] = {}
    if lock_timeout_s:
        yield LOCK_TIMEOUT, (f"{round(lock_timeout_s * 1000)}ms",)
    for account, own in grouped_by_account(holds):
        yield from _hold_on_account(account, own, refusals)
    for hold in sorted(holds, key=lambda hold: (hold.key_id, hold.month)):
        if hold.month and hold.id not in refusals:
            yield from _hold_on_budget(hold, refusals)
    yield INSERT_HOLD, [hold_values(hold) for hold in holds if hold.id not in refusals]
    return [refusals.get(hold.id) for hold in holds]


def grouped_by_account(holds: Sequence[HoldRow]) -> Iterable[tuple[str, list[HoldRow]]]:
    """Return the holds by account, in the order of the names, which avoids deadlocks."""
    groups: dict[str, list[HoldRow]] = {}
    for hold in holds:
        groups.setdefault(hold.account, []).append(hold)
    return sorted(groups.items())


def _hold_on_account(
    account: str, holds: Sequence[HoldRow], refusals: dict[str, Failure]
) -> Transaction[None]:
    """Hold the sum, or if the balance is too low, as many of the holds as it allows, in order."""
    amount = sum(hold.amount for hold in holds)
    if not amount or (yield HOLD_ON_ACCOUNT, (amount, account, amount)):
        return
    for hold in holds:
        alone = len(holds) == 1
        taken = not alone and (yield HOLD_ON_ACCOUNT, (hold.amount, account, hold.amount))
        if hold.amount and not taken:
            refusals[hold.id] = insufficient()


def _hold_on_budget(hold: HoldRow, refusals: dict[str, Failure]) -> Transaction[None]:
    yield OPEN_BUDGET, (hold.key_id, hold.month)
    if not hold.amount:
        return
    values = (hold.amount, hold.key_id, hold.month, hold.amount, hold.budget)
    taken = yield HOLD_ON_BUDGET, values
    if not taken:
        refusals[hold.id] = budget_exceeded()
        yield ADD_TO_ACCOUNT, (-hold.amount, hold.account)


def hold_values(hold: HoldRow) -> Values:
    """Return the parameters of `INSERT_HOLD`."""
    return (
        hold.id, hold.request_id, hold.account, hold.key_id, hold.model,
        hold.amount, hold.price, hold.month, hold.owner, hold.created_ms, hold.extends,
    )  # fmt: skip


def budget_exceeded() -> Failure:
    """Return the failure for a key whose budget for the month is too low."""
    return Failure(ErrorReason.BUDGET_EXCEEDED, "The key has spent its budget for the month.")


def insufficient() -> Failure:
    """Return the failure for an account whose free balance is too low."""
    return Failure(ErrorReason.INSUFFICIENT_QUOTA, "Insufficient balance")
