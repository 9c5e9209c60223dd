"""The keys of callers, as they are stored: by keyed digest, never the key itself."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.storage.base import Row, Transaction, notify


class KeyScope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key may do. Stored as JSON, so new fields need a default."""

    models: frozenset[str] = frozenset()
    """The public models that it may use. Empty: all."""
    expire_ms: int | None = None
    """When it ceases to be valid."""
    strict: bool = False
    """Refuse calls whose parameters the model cannot honour, unless they say otherwise."""
    rpm: int | None = None
    """Requests a minute. None: no limit."""
    tpm: int | None = None
    """Tokens a minute. None: no limit."""
    concurrency: int | None = None
    """Calls at the same time. None: no limit."""
    monthly_nano_usd: int | None = None
    """What it may spend in a calendar month (UTC). None: no limit."""


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without the secret."""

    id: str
    """Such as `key-4f1d…`: safe to show."""
    account: str
    """Who pays."""
    digest: str
    """The keyed digest of the secret, in hexadecimal. Unique."""
    prefix: str
    """The beginning of the secret, to recognize it by."""
    display_name: str
    """What it is for."""
    scope: KeyScope
    """What it may do."""
    created_ms: int
    """When it was made."""
    revoked_ms: int | None = None
    """When it was revoked."""
    markup_bp: int = 0
    """What its account is charged on top of prices, in hundredths of a percent."""
    until_ms: int | None = None
    """When the secret that it was found by ceases to be valid, since it has a new one.
    None: as long as the key is."""


class NewSecret(msgspec.Struct, frozen=True, kw_only=True):
    """What takes the place of a key's secret."""

    key_id: str
    """Whose."""
    digest: str
    """Its keyed digest, in hexadecimal."""
    prefix: str
    """Its beginning."""
    former_until_ms: int
    """When the secrets that the key had before cease to be valid."""


INSERT = """
    INSERT INTO keys (id, account, digest, prefix, display_name, scope, created_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
SELECT_BY_DIGEST = """
    SELECT id, account, keys.digest, prefix, display_name, scope, keys.created_ms, revoked_ms,
        markup_bp, NULL
    FROM keys JOIN accounts ON accounts.name = account WHERE keys.digest = ?
    UNION ALL
    SELECT id, account, keys.digest, prefix, display_name, scope, keys.created_ms, revoked_ms,
        markup_bp, until_ms
    FROM former_secrets JOIN keys ON keys.id = key_id JOIN accounts ON accounts.name = account
    WHERE former_secrets.digest = ?
"""
SELECT_BY_ID = """
    SELECT id, account, digest, prefix, display_name, scope, keys.created_ms, revoked_ms,
        markup_bp, NULL
    FROM keys JOIN accounts ON accounts.name = account WHERE id = ?
"""
SELECT_PAGE = """
    SELECT id, account, digest, prefix, display_name, scope, keys.created_ms, revoked_ms,
        markup_bp, NULL
    FROM keys JOIN accounts ON accounts.name = account WHERE (keys.created_ms, id) > (?, ?)
        AND (account = ? OR ? = '')
    ORDER BY keys.created_ms, id LIMIT ?
"""
REVOKE = "UPDATE keys SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL"

FORGET_FORMER = "DELETE FROM former_secrets WHERE key_id = ? AND until_ms <= ?"
SHORTEN_FORMER = "UPDATE former_secrets SET until_ms = ? WHERE key_id = ? AND until_ms > ?"
KEEP_FORMER = """
    INSERT INTO former_secrets (digest, key_id, until_ms)
    SELECT digest, id, ? FROM keys WHERE id = ? AND revoked_ms IS NULL
"""
ROTATE = """
    UPDATE keys SET digest = ?, prefix = ? WHERE id = ? AND revoked_ms IS NULL RETURNING id
"""

_SCOPE = msgspec.json.Decoder(KeyScope)
_ENCODER = msgspec.json.Encoder(order="deterministic")


def insert_key(key: StoredKey) -> Transaction[None]:
    """Stores a new key. Its account is there already."""
    scope = _ENCODER.encode(key.scope).decode()
    yield (
        INSERT,
        (key.id, key.account, key.digest, key.prefix, key.display_name, scope, key.created_ms),
    )


def key_by_digest(digest: str) -> Transaction[StoredKey | None]:
    """The key that has, or had, a secret of that digest, revoked or not."""
    rows = yield SELECT_BY_DIGEST, (digest, digest)
    return _key(rows[0]) if rows else None


def key_by_id(key_id: str) -> Transaction[StoredKey | None]:
    """The key of that ID, revoked or not."""
    rows = yield SELECT_BY_ID, (key_id,)
    return _key(rows[0]) if rows else None


def list_keys(
    limit: int, account: str = "", after: tuple[int, str] = (-1, "")
) -> Transaction[Sequence[StoredKey]]:
    """At most `limit` keys, oldest first, from behind `after`: a creation time and an ID."""
    rows = yield SELECT_PAGE, (*after, account, account, limit)
    return [_key(row) for row in rows]


def revoke_key(key_id: str, now_ms: int) -> Transaction[StoredKey | None]:
    """Revokes a key, and tells every process; None where there is no such key."""
    yield REVOKE, (now_ms, key_id)
    key = yield from key_by_id(key_id)
    if key is not None:
        yield notify(key_id)
    return key


def rotate_key(secret: NewSecret, now_ms: int) -> Transaction[StoredKey | None]:
    """Gives a key its new secret, and tells every process; None where no such key is valid.

    The secret that it had, and those before, are valid until `secret.former_until_ms` at most.
    """
    key_id, until_ms = secret.key_id, secret.former_until_ms
    yield FORGET_FORMER, (key_id, now_ms)
    yield SHORTEN_FORMER, (until_ms, key_id, until_ms)
    yield KEEP_FORMER, (until_ms, key_id)
    rows = yield ROTATE, (secret.digest, secret.prefix, key_id)
    if not rows:
        return None
    yield notify(key_id)
    return (yield from key_by_id(key_id))


def any_key() -> Transaction[bool]:
    """Whether a key was ever made here."""
    rows = yield "SELECT 1 FROM keys LIMIT 1", ()
    return bool(rows)


def _key(row: Row) -> StoredKey:
    fields = dict(zip(StoredKey.__struct_fields__, row, strict=True))
    fields["scope"] = _SCOPE.decode(str(fields["scope"]))
    return msgspec.convert(fields, StoredKey)
