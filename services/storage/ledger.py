"""Holds and transfers, as statements. `services.metering.ledger` says when they are made.

What must be true of them for ever is what `services.storage.audit` checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure
from services.storage.base import ConstraintError, Row, Statement, Transaction, Value

REVENUE = ":revenue"
"""Where charges go."""

DEPOSITS = ":deposits"
"""Where credits come from."""

SETTLED = "settled"
VOIDED = "voided"
"""How a hold ends: charged, or released whole. Strangers recover it: RECOVER_HOLD."""

INSERT_HOLD = """
    INSERT INTO holds
        (id, request_id, account, key_id, model, amount, price, month, owner, state, created_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'held', ?)
"""
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
RENEW_LEASE = """
    INSERT INTO leases (owner, until_ms) VALUES (?, now_ms() + ?)
    ON CONFLICT (owner) DO UPDATE SET until_ms = excluded.until_ms
"""
END_LEASES = "DELETE FROM leases WHERE owner = ? OR ? = ''"
END_LEASE = "DELETE FROM leases WHERE owner = ? AND until_ms = ?"
SELECT_EXPIRED_LEASES = """
    SELECT owner, until_ms FROM leases
    WHERE until_ms < now_ms() OR until_ms > now_ms() + ?
"""
SELECT_ORPHANS = """
    SELECT id FROM holds WHERE state = 'held' AND owner NOT IN (SELECT owner FROM leases) LIMIT ?
"""
SELECT_OWNED = "SELECT id FROM holds WHERE state = 'held' AND owner = ? AND created_ms < ?"

LEASE_MAX_MS = 24 * 3600 * 1000
"""The longest lease: one that has longer to go was given before the clock went back."""


class ExpiredLease(msgspec.Struct, frozen=True, array_like=True):
    """A lease that is over, as far as the clock knows."""

    owner: str
    """Whose."""
    until_ms: int
    """When it was to end. A living process has moved that by the next look."""


class HoldRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a request takes before anything is sent upstream."""

    id: str
    """Unique for ever."""
    request_id: str
    """As logs and callers have it; callers may choose it, so it need not be unique."""
    account: str
    """Who pays."""
    key_id: str
    """Who asked."""
    model: str
    """The public model."""
    amount: int
    """What is held, in nano-USD."""
    price: str
    """The price that was in force, as JSON."""
    month: str
    """The month whose budget it counts against, such as `2026-11`; empty without a budget."""
    budget: int
    """The key's budget for a month."""
    owner: str
    """The process that will end it."""
    created_ms: int
    """When it was made."""


class Tokens(msgspec.Struct, frozen=True):
    """What a request took, and who counted."""

    source: str = ""
    """`provider`, `drained` or `counted`; empty where nothing was used."""
    prompt: int = 0
    """Read, cached or not."""
    completion: int = 0
    """Generated, reasoning included."""
    thinking: int = 0
    """Of those generated, the ones spent on reasoning."""
    cache_read: int = 0
    """Of the prompt, those read from the provider's cache."""
    cache_write: int = 0
    """Of the prompt, those written to the provider's cache."""


NO_TOKENS = Tokens()


class Checkpoint(msgspec.Struct, frozen=True):
    """What a running request has used so far."""

    hold_id: str
    """Whose."""
    charge: int
    """What it would cost if it ended now, in nano-USD."""
    tokens: Tokens
    """What it took."""


class HoldEnd(msgspec.Struct, frozen=True):
    """How a hold is to end."""

    hold: HoldRow
    """Which. A row's keeper may end it without reading it: what it holds never changes."""
    state: str
    """SETTLED or VOIDED."""
    charge: int
    """In nano-USD."""
    tokens: Tokens
    """What it took."""
    ended_ms: int
    """When."""


def insert_hold(hold: HoldRow) -> Transaction[None]:
    """Admits a request, or raises Failure: INSUFFICIENT_QUOTA, BUDGET_EXCEEDED.

    One conditional update decides, so that no number of requests at once spends more
    than there is.
    """
    if hold.amount:
        taken = yield HOLD_ON_ACCOUNT, (hold.amount, hold.account, hold.amount)
        if not taken:
            raise insufficient()
    if hold.month:
        yield from _hold_on_budget(hold)
    yield (
        INSERT_HOLD,
        (
            hold.id, hold.request_id, hold.account, hold.key_id, hold.model,
            hold.amount, hold.price, hold.month, hold.owner, hold.created_ms,
        ),
    )  # fmt: skip


def _hold_on_budget(hold: HoldRow) -> Transaction[None]:
    yield OPEN_BUDGET, (hold.key_id, hold.month)
    if not hold.amount:
        return
    values = (hold.amount, hold.key_id, hold.month, hold.amount, hold.budget)
    taken = yield HOLD_ON_BUDGET, values
    if not taken:
        raise Failure(
            reasons.ERROR_REASON_BUDGET_EXCEEDED, "The key has spent its budget for the month."
        )


def insufficient() -> Failure:
    """The failure of an account that does not have what is to be taken from it."""
    return Failure(reasons.ERROR_REASON_INSUFFICIENT_QUOTA, "Insufficient balance")


def end_holds(hold_ends: Sequence[HoldEnd]) -> Transaction[list[bool]]:
    """Ends each hold that has not ended; says of each whether this is what ended it."""
    won: list[bool] = []
    releases = _Releases()
    for hold_end in hold_ends:
        hold, charge = hold_end.hold, hold_end.charge
        ended = yield (
            END_HOLD,
            (
                hold_end.state, charge, charge, charge, *_token_values(hold_end.tokens),
                hold_end.ended_ms, hold.id,
            ),
        )  # fmt: skip
        won.append(bool(ended))
        if ended:
            releases.add(hold.account, hold.amount, hold.key_id, hold.month, charge)
            if charge:
                yield _charge(hold.id, hold.account, charge, hold_end.ended_ms)
    yield from releases.apply()
    return won


def recover_holds(hold_ids: Sequence[str], now_ms: int) -> Transaction[int]:
    """Ends holds that nobody else will, each at its last checkpoint. Returns how many it ended.

    Raises ConstraintError where one of them is not as `insert_hold` has left it.
    """
    recovered = 0
    releases = _Releases()
    for hold_id in hold_ids:
        rows = yield RECOVER_HOLD, (now_ms, hold_id)
        if not rows:
            continue
        recovered += 1
        account, amount, key_id, month, charge = _recovered(rows[0])
        releases.add(account, amount, key_id, month, charge)
        if charge:
            yield _charge(hold_id, account, charge, now_ms)
    yield from releases.apply()
    return recovered


def _charge(hold_id: str, account: str, charge: int, now_ms: int) -> Statement:
    return TRANSFER, (f"charge:{hold_id}", account, REVENUE, charge, now_ms)


_Nano: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_RecoveredHold: TypeAlias = tuple[str, _Nano, str, str, _Nano]
"""Of a hold that was recovered: account, amount, key, month of the budget, charge."""


def _recovered(row: Row) -> _RecoveredHold:
    try:
        recovered: _RecoveredHold = msgspec.convert(row, _RecoveredHold)
    except msgspec.ValidationError as error:
        # SQLite keeps anything in any column.
        raise ConstraintError(str(error)) from error
    return recovered


class _Releases:
    """What holds that end together give back, added up: one statement an account and a budget."""

    __slots__ = ("_accounts", "_budgets")

    def __init__(self) -> None:
        self._accounts: dict[str, tuple[int, int]] = {}
        self._budgets: dict[tuple[str, str], tuple[int, int]] = {}

    def add(self, account: str, amount: int, key_id: str, month: str, charge: int) -> None:
        """A hold of `amount` has ended, and cost `charge`."""
        charged, held = self._accounts.get(account, (0, 0))
        self._accounts[account] = (charged + charge, held + amount)
        if month:
            charged, held = self._budgets.get((key_id, month), (0, 0))
            self._budgets[key_id, month] = (charged + charge, held + amount)

    def apply(self) -> Transaction[None]:
        """In the order of their names, so that no two processes wait for each other."""
        for account, (charge, amount) in sorted(self._accounts.items()):
            yield from _update_existing(RELEASE_TO_ACCOUNT, charge, amount, account)
        for (key_id, month), (charge, amount) in sorted(self._budgets.items()):
            yield from _update_existing(RELEASE_TO_BUDGET, charge, amount, key_id, month)


def _update_existing(sql: str, *values: Value) -> Transaction[None]:
    """Changes a row that must be there."""
    changed = yield sql, values
    if not changed:
        raise ConstraintError("there is no such account or budget")


def write_checkpoints(checkpoints: Sequence[Checkpoint]) -> Transaction[None]:
    """Remembers what running requests have used: what is charged if their process dies."""
    for point in checkpoints:
        yield CHECKPOINT, (point.charge, *_token_values(point.tokens), point.hold_id)


def renew_lease(owner: str, lease_ms: int) -> Transaction[None]:
    """Says that a process lives, for a while, by the database's clock."""
    yield RENEW_LEASE, (owner, lease_ms)


def end_leases(owner: str = "") -> Transaction[None]:
    """Says that a process lives no more; without a name, that none does."""
    yield END_LEASES, (owner, owner)


def end_expired_leases(seen: Sequence[ExpiredLease]) -> Transaction[list[ExpiredLease]]:
    """Ends the leases that have not been renewed since they were `seen` to be over.

    Gives those that are over now, to be seen again. One look is not enough: where the
    database's date jumps, the leases of all who live are over in the same moment.
    """
    for lease in seen:
        yield END_LEASE, (lease.owner, lease.until_ms)
    rows = yield SELECT_EXPIRED_LEASES, (LEASE_MAX_MS,)
    return [msgspec.convert(row, ExpiredLease) for row in rows]


def orphaned_holds(limit: int) -> Transaction[list[str]]:
    """Holds whose process lives no more."""
    rows = yield SELECT_ORPHANS, (limit,)
    return [str(row[0]) for row in rows]


def owned_holds(owner: str, before_ms: int) -> Transaction[list[str]]:
    """Holds that a process took before some time and has not ended."""
    rows = yield SELECT_OWNED, (owner, before_ms)
    return [str(row[0]) for row in rows]


def _token_values(tokens: Tokens) -> tuple[str, int, int, int, int, int]:
    return (
        tokens.source, tokens.prompt, tokens.completion, tokens.thinking,
        tokens.cache_read, tokens.cache_write,
    )  # fmt: skip
