"""Audit log of changes by operators and tenants, as statements. Entries are never changed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from services.storage.base import Transaction

INSERT = """
    INSERT INTO audit_entries
        (id, created_ms, actor_type, actor, account, method, resource, before_text, after_text,
        request_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
DROP_OLD = """
    DELETE FROM audit_entries WHERE id IN (
        SELECT id FROM audit_entries WHERE created_ms < ? ORDER BY created_ms LIMIT 100
    )
"""
SELECT_PAGE = """
    SELECT id, created_ms, actor_type, actor, account, method, resource, before_text, after_text,
        request_id
    FROM audit_entries WHERE (created_ms, id) < (?, ?)
        AND (account = ? OR ? = '') AND (actor = ? OR ? = '')
    ORDER BY created_ms DESC, id DESC LIMIT ?
"""
SELECT_RECENT = """
    SELECT created_ms FROM audit_entries WHERE account = ? AND actor_type = 'key'
        AND created_ms > ? ORDER BY created_ms DESC LIMIT 1 OFFSET ?
"""

OPERATOR = "operator"
KEY = "key"
SYSTEM = "system"
"""Types of actors: a caller of the operators' listener, a key, and the gateway itself."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change, without secrets."""

    id: str
    """Unique."""
    created_ms: int
    """Time of the change."""
    actor_type: str
    """`operator`, `key` or `system`."""
    actor: str
    """Name of the operator, where it is known; ID of the key; cause of an act of the gateway."""
    account: str
    """Account of what changed. Empty: it has none."""
    method: str
    """Method that made the change, such as `KeyService.RevokeKey`."""
    resource: str
    """Name of what changed, such as `keys/key-4f1d…`."""
    before_text: str
    """State before the change, as JSON. Empty: it did not exist."""
    after_text: str
    """State after the change, as JSON. Empty: it does not exist any more."""
    request_id: str
    """Request ID in logs and answers."""


def new_entry_id() -> str:
    """Return an ID that no other entry has."""
    return f"audit-{secrets.token_hex(8)}"


def insert_entry(entry: AuditEntry, keep_ms: int = 0) -> Transaction[None]:
    """Insert an entry, and delete some of those that are older than `keep_ms`. 0: keep all."""
    values = tuple(getattr(entry, name) for name in AuditEntry.__struct_fields__)
    yield INSERT, values
    if keep_ms:
        yield DROP_OLD, (entry.created_ms - keep_ms,)


def list_entries(
    limit: int, before: tuple[int, str], account: str = "", actor: str = ""
) -> Transaction[Sequence[AuditEntry]]:
    """Return at most `limit` entries, newest first, older than the position (time, ID)."""
    rows = yield SELECT_PAGE, (*before, account, account, actor, actor, limit)
    names = AuditEntry.__struct_fields__
    return [msgspec.convert(dict(zip(names, row, strict=True)), AuditEntry) for row in rows]


def nth_recent_ms(account: str, since_ms: int, number: int) -> Transaction[int | None]:
    """Return the time of the `number`th newest change by the account's keys after `since_ms`."""
    rows = yield SELECT_RECENT, (account, since_ms, number - 1)
    return msgspec.convert(rows[0][0], int) if rows else None
