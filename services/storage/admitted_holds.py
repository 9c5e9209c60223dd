"""Holds that memory has admitted, on their way into the database."""

from __future__ import annotations

from collections.abc import Sequence

from services.storage.base import ConstraintError, Row, Transaction, Values
from services.storage.hold_ends import (
    TRANSFER,
    HoldEnd,
    Releases,
    charge_values,
    token_values,
    update_existing,
)
from services.storage.ledger import (
    ADD_TO_ACCOUNT,
    INSERT_HOLD,
    OPEN_BUDGET,
    HoldRow,
    grouped_by_account,
    hold_values,
)

WRITE_HOLD = f"{INSERT_HOLD} ON CONFLICT (id) DO NOTHING"
"""`INSERT_HOLD`, which does nothing if an earlier attempt has written the hold."""

WRITE_ENDED_HOLD = """
    INSERT INTO holds
        (id, request_id, account, key_id, model, amount, price, month, owner, created_ms, extends,
        state, charge, overrun, source, prompt_tokens, completion_tokens, thinking_tokens,
        cache_read_tokens, cache_write_tokens, ended_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO NOTHING
"""
ADD_TO_BUDGET = "UPDATE budgets SET held = held + ? WHERE key_id = ? AND month = ?"


def write_holds(holds: Sequence[HoldRow], ended: Sequence[HoldEnd]) -> Transaction[None]:
    """Write holds that memory has admitted: those in flight, and those that have ended meanwhile.

    A batch that an earlier attempt has written changes nothing. Raise ConstraintError if only a
    part of it is there.
    """
    if holds:
        written = yield WRITE_HOLD, [hold_values(hold) for hold in holds]
        if _is_new(written, holds):
            for account, own in grouped_by_account(holds):
                amount = sum(hold.amount for hold in own)
                yield from update_existing(ADD_TO_ACCOUNT, amount, account)
            for hold in holds:
                if hold.month:
                    yield OPEN_BUDGET, (hold.key_id, hold.month)
                    yield ADD_TO_BUDGET, (hold.amount, hold.key_id, hold.month)
    if ended:
        written = yield WRITE_ENDED_HOLD, [_ended_values(hold_end) for hold_end in ended]
        if _is_new(written, ended):
            yield from _charge_new(ended)


def _is_new(written: Sequence[Row], batch: Sequence[object]) -> bool:
    if written and len(written) != len(batch):
        raise ConstraintError("a part of the batch was written before")
    return bool(written)


def _ended_values(hold_end: HoldEnd) -> Values:
    hold, charge = hold_end.hold, hold_end.charge
    return (
        *hold_values(hold), hold_end.state, charge, max(0, charge - hold.amount),
        *token_values(hold_end.usage), hold_end.ended_ms,
    )  # fmt: skip


def _charge_new(ended: Sequence[HoldEnd]) -> Transaction[None]:
    """Charge holds that were never in the held amount of their account and budget."""
    charges = [
        charge_values(hold_end.hold.id, hold_end.hold.account, hold_end.charge, hold_end.ended_ms)
        for hold_end in ended
        if hold_end.charge
    ]
    if charges:
        yield TRANSFER, charges
    releases = Releases()
    for hold_end in ended:
        hold = hold_end.hold
        if hold.month:
            yield OPEN_BUDGET, (hold.key_id, hold.month)
        releases.add(hold.account, 0, hold.key_id, hold.month, hold_end.charge)
    yield from releases.apply()
