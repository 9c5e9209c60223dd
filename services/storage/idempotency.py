"""Idempotency keys, as statements. `services.completions.idempotency` uses them.

    (free) ── claim ──► running ──┬─ store_answer ─► stored | spent ── a day later ─► (free)
                                  └─ release, or the lease of its process ends ─────► (free)

Where an account has more answers or keys than `bound_account` allows, the oldest answers are
dropped (`stored` becomes `spent`), and the oldest ended keys are free.

The lease of a process is the one of its ledger: the ledger renews it, and the ledgers of other
processes end it after it has expired.
"""

from __future__ import annotations

import msgspec

from services.storage.base import Transaction

RUNNING = "running"
STORED = "stored"
SPENT = "spent"
"""In flight; answered, with the answer stored; answered, without a stored answer: it was too
long, or dropped."""

# One statement decides, so that one of any number of concurrent equal calls is made.
CLAIM = """
    INSERT INTO idempotency_keys (account, key, fingerprint, run, owner, state)
    VALUES (?, ?, ?, ?, ?, 'running')
    ON CONFLICT (account, key) DO UPDATE SET fingerprint = excluded.fingerprint,
        run = excluded.run, owner = excluded.owner, state = excluded.state,
        answer = NULL, expire_ms = NULL
    WHERE idempotency_keys.expire_ms <= now_ms() OR (idempotency_keys.state = 'running'
        AND idempotency_keys.owner NOT IN (SELECT owner FROM leases))
    RETURNING run
"""
SELECT = "SELECT fingerprint, state, answer FROM idempotency_keys WHERE account = ? AND key = ?"
KEEP = """
    UPDATE idempotency_keys SET state = ?, answer = ?, expire_ms = now_ms() + ?
    WHERE account = ? AND key = ? AND run = ? AND state = 'running' RETURNING run
"""
RELEASE = """
    DELETE FROM idempotency_keys WHERE account = ? AND key = ? AND run = ? AND state = 'running'
"""
# By run, not by key: the key may have been claimed by another run meanwhile. Each half has an
# index; PostgreSQL uses the first only with a clock that is read once, as in a subquery.
FORGET = """
    DELETE FROM idempotency_keys WHERE run IN (
        SELECT run FROM idempotency_keys WHERE expire_ms <= (SELECT now_ms())
        UNION ALL
        SELECT run FROM idempotency_keys WHERE state = 'running'
            AND owner NOT IN (SELECT owner FROM leases)
        LIMIT ?
    ) RETURNING run
"""
# Newest first, so that the sum is that of an answer and all newer ones.
DROP_ANSWERS = """
    UPDATE idempotency_keys SET state = 'spent', answer = NULL WHERE run IN (
        SELECT run FROM (
            SELECT run, sum(length(answer)) OVER (ORDER BY expire_ms DESC, run DESC) AS total
            FROM idempotency_keys WHERE account = ? AND state = 'stored'
        ) AS answers WHERE total > ?
    ) RETURNING run
"""
DROP_KEYS = """
    DELETE FROM idempotency_keys WHERE run IN (
        SELECT run FROM idempotency_keys WHERE account = ? AND state <> 'running'
        ORDER BY expire_ms DESC, run DESC LIMIT ? OFFSET ?
    ) RETURNING run
"""
DROP_KEYS_MAX = 10_000
"""Most keys that are deleted in one transaction."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Attempt at making the call that an idempotency key names."""

    account: str
    """Account of the caller. Keys of different accounts are independent."""
    key: str
    """Idempotency key."""
    id: str
    """Unique, so that no run ends another."""


class UsedKey(msgspec.Struct, frozen=True, array_like=True):
    """Idempotency key that is in use."""

    fingerprint: str
    """Digest of the request."""
    state: str
    """RUNNING, STORED or SPENT."""
    answer: bytes | None
    """The answer, if the state is STORED."""


def claim(run: Run, fingerprint: str, owner: str) -> Transaction[UsedKey | None]:
    """Claim the key for `run` and return None, or return the key if it is in use."""
    taken = yield CLAIM, (run.account, run.key, fingerprint, run.id, owner)
    if taken:
        return None
    # PostgreSQL has locked the conflicting row, so it still exists.
    rows = yield SELECT, (run.account, run.key)
    return msgspec.convert(rows[0], UsedKey)


def store_answer(run: Run, answer: bytes | None, retention_ms: int) -> Transaction[bool]:
    """End `run`, with or without an answer. Return whether `run` still had the key."""
    state = SPENT if answer is None else STORED
    rows = yield KEEP, (state, answer, retention_ms, run.account, run.key, run.id)
    return bool(rows)


def bound_account(account: str, bytes_max: int, keys_max: int) -> Transaction[tuple[int, int]]:
    """Drop the oldest answers and ended keys of an account that are more than allowed.

    Return how many of each were dropped.
    """
    answers = yield DROP_ANSWERS, (account, bytes_max)
    keys = yield DROP_KEYS, (account, DROP_KEYS_MAX, keys_max)
    return len(answers), len(keys)


def release(run: Run) -> Transaction[None]:
    """Free the key if `run` still has it and has not ended."""
    yield RELEASE, (run.account, run.key, run.id)


def delete_expired(limit: int) -> Transaction[int]:
    """Delete at most `limit` free keys. Return how many."""
    rows = yield FORGET, (limit,)
    return len(rows)
