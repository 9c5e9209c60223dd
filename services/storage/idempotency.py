"""Idempotency keys, as statements. `services.completions.idempotency` says when they are used.

    (free) ── claim ──► running ──┬─ keep ────► stored | spent ── a day later ──► (free)
                                  └─ release, or the lease of its process ends ─► (free)

A process lives while it has a lease: the one that the ledger renews for it, and that the ledgers
of others end when it does so no more.
"""

from __future__ import annotations

import msgspec

from services.storage.base import Transaction

RUNNING = "running"
STORED = "stored"
SPENT = "spent"
"""The call is being made; it has an answer; it had one, which is not kept."""

# One statement decides, so that of any number of equal calls at once one is made.
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
# By run, not by key: a key that is claimed meanwhile is somebody else's. Each half has an index;
# PostgreSQL compares one only with a clock that is read once, as in a subquery.
FORGET = """
    DELETE FROM idempotency_keys WHERE run IN (
        SELECT run FROM idempotency_keys WHERE expire_ms <= (SELECT now_ms())
        UNION ALL
        SELECT run FROM idempotency_keys WHERE state = 'running'
            AND owner NOT IN (SELECT owner FROM leases)
        LIMIT ?
    ) RETURNING run
"""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at making a call."""

    account: str
    """Whose key it is: keys of different accounts never meet."""
    key: str
    """The caller's name for the call."""
    id: str
    """Unique for ever, so that nobody ends the attempt of another."""


class UsedKey(msgspec.Struct, frozen=True, array_like=True):
    """What is known about a key that is in use."""

    fingerprint: str
    """What was asked for, as a digest."""
    state: str
    """RUNNING, STORED or SPENT."""
    answer: bytes | None
    """Where it is STORED."""


def claim(run: Run, fingerprint: str, owner: str) -> Transaction[UsedKey | None]:
    """Takes the key for `run`, and returns None; or what is known of it where it is in use."""
    taken = yield CLAIM, (run.account, run.key, fingerprint, run.id, owner)
    if taken:
        return None
    # PostgreSQL has locked the row that was in the way, so that it is still there.
    rows = yield SELECT, (run.account, run.key)
    return msgspec.convert(rows[0], UsedKey)


def store_answer(run: Run, answer: bytes | None, keep_ms: int) -> Transaction[bool]:
    """Ends `run` with its answer, or without; whether the key was still its own."""
    state = SPENT if answer is None else STORED
    rows = yield KEEP, (state, answer, keep_ms, run.account, run.key, run.id)
    return bool(rows)


def release(run: Run) -> Transaction[None]:
    """Frees the key, if `run` still has it and has not ended."""
    yield RELEASE, (run.account, run.key, run.id)


def delete_expired(limit: int) -> Transaction[int]:
    """Deletes at most `limit` keys that are free; returns how many."""
    rows = yield FORGET, (limit,)
    return len(rows)
