"""API keys, as statements. A key is stored by its keyed digest, never in plain text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from services.storage.base import Row, Transaction, notify


class KeyScope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Permissions and limits of a key. Stored as JSON, so new fields need a default."""

    models: frozenset[str] = frozenset()
    """Public models that the key may use. Empty: all."""
    expire_ms: int | None = None
    """Expiry time. None: never."""
    strict: bool = False
    """Default parameter policy: refuse calls whose parameters the model cannot honour."""
    rpm: int | None = None
    """Requests per minute. None: no limit."""
    tpm: int | None = None
    """Tokens per minute. None: no limit."""
    concurrency: int | None = None
    """Concurrent calls. None: no limit."""
    monthly_nano_usd: int | None = None
    """Budget for a calendar month (UTC). None: no limit."""
    text_content: bool = False
    """Whether the content of REST answers is a string, also that of `-thinking` names."""
    thinking_names_hidden: bool = False
    """Whether the list of models is without the `-thinking` names."""
    administers_account: bool = False
    """Whether the key administers the keys of its account."""


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """Key as it is stored, without the secret."""

    id: str
    """Public ID, such as `key-4f1d…`."""
    account: str
    """Account that pays."""
    digest: str
    """Keyed digest of the secret, in hexadecimal. Unique."""
    prefix: str
    """First characters of the secret, to recognize it by."""
    display_name: str
    """Purpose, in the operator's words."""
    scope: KeyScope
    """Permissions and limits."""
    created_ms: int
    """Time of creation."""
    revoked_ms: int | None = None
    """Time of revocation. None: not revoked."""
    markup_bp: int = 0
    """Markup of the account on prices, in hundredths of a percent."""
    until_ms: int | None = None
    """Expiry of the former secret that the key was looked up by. None: the current secret."""
    unlimited: bool = False
    """Whether the account's calls are admitted without regard to its balance."""


class NewSecret(msgspec.Struct, frozen=True, kw_only=True):
    """New secret of a rotated key."""

    key_id: str
    """ID of the key."""
    digest: str
    """Keyed digest of the new secret, in hexadecimal."""
    prefix: str
    """First characters of the new secret."""
    former_until_ms: int
    """Expiry of the former secrets of the key."""


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request to create a key, which may be repeated."""

    id: str
    """ID that the caller chose."""
    fingerprint: str
    """Digest of the request."""


class FormerKeyRequest(msgspec.Struct, frozen=True, array_like=True):
    """Request that has created a key."""

    key_id: str
    fingerprint: str


CLAIM_REQUEST = """
    INSERT INTO key_requests (request_id, key_id, fingerprint) VALUES (?, ?, ?)
    ON CONFLICT (request_id) DO NOTHING RETURNING key_id
"""
SELECT_REQUEST = "SELECT key_id, fingerprint FROM key_requests WHERE request_id = ?"
INSERT = """
    INSERT INTO keys (id, account, digest, prefix, display_name, scope, created_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_COLUMNS = """
    id, account, keys.digest, prefix, display_name, scope, keys.created_ms, revoked_ms, markup_bp
"""
_SELECT = f"""
    SELECT {_COLUMNS}, NULL, unlimited FROM keys JOIN accounts ON accounts.name = account
"""  # noqa: S608  Constants of this module.
SELECT_BY_DIGEST = f"""
    {_SELECT} WHERE keys.digest = ?
    UNION ALL
    SELECT {_COLUMNS}, until_ms, unlimited
    FROM former_secrets JOIN keys ON keys.id = key_id JOIN accounts ON accounts.name = account
    WHERE former_secrets.digest = ?
"""  # noqa: S608
SELECT_BY_ID = f"{_SELECT} WHERE id = ?"
SELECT_PAGE = f"""
    {_SELECT} WHERE (keys.created_ms, id) > (?, ?) AND (account = ? OR ? = '')
    ORDER BY keys.created_ms, id LIMIT ?
"""
SELECT_UNREVOKED = f"{_SELECT} WHERE account = ? AND revoked_ms IS NULL"
SELECT_TERMS = "SELECT display_name, scope FROM keys WHERE id = ? AND revoked_ms IS NULL"
# Only if no other process has changed the key meanwhile.
SET_TERMS = """
    UPDATE keys SET display_name = ?, scope = ?
    WHERE id = ? AND revoked_ms IS NULL AND display_name = ? AND scope = ? RETURNING id
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
    """Insert a new key. Its account must exist."""
    scope = _ENCODER.encode(key.scope).decode()
    yield (
        INSERT,
        (key.id, key.account, key.digest, key.prefix, key.display_name, scope, key.created_ms),
    )


def claim_key_request(request: KeyRequest, key_id: str) -> Transaction[FormerKeyRequest | None]:
    """Note that a request creates this key and return None, or return the request before it."""
    claimed = yield CLAIM_REQUEST, (request.id, key_id, request.fingerprint)
    if claimed:
        return None
    rows = yield SELECT_REQUEST, (request.id,)
    return msgspec.convert(list(rows[0]), FormerKeyRequest)


def key_by_digest(digest: str) -> Transaction[StoredKey | None]:
    """Return the key with this digest, current or former, revoked or not."""
    rows = yield SELECT_BY_DIGEST, (digest, digest)
    return _key(rows[0]) if rows else None


def key_by_id(key_id: str) -> Transaction[StoredKey | None]:
    """Return the key with this ID, revoked or not."""
    rows = yield SELECT_BY_ID, (key_id,)
    return _key(rows[0]) if rows else None


def revoked_keys(key_ids: Iterable[str]) -> Transaction[Collection[str]]:
    """Return those of these IDs whose keys were revoked or do not exist."""
    revoked = set()
    for key_id in key_ids:
        key = yield from key_by_id(key_id)
        if key is None or key.revoked_ms is not None:
            revoked.add(key_id)
    return revoked


def list_keys(
    limit: int, account: str = "", after: tuple[int, str] = (-1, "")
) -> Transaction[Sequence[StoredKey]]:
    """Return at most `limit` keys, oldest first, after the position (creation time, ID)."""
    rows = yield SELECT_PAGE, (*after, account, account, limit)
    return [_key(row) for row in rows]


def unrevoked_keys(account: str) -> Transaction[Sequence[StoredKey]]:
    """Return the keys of an account that were not revoked, expired ones included."""
    rows = yield SELECT_UNREVOKED, (account,)
    return [_key(row) for row in rows]


def update_key(
    key_id: str, change: Callable[[str, KeyScope], tuple[str, KeyScope]]
) -> Transaction[StoredKey | None]:
    """Change name and scope of a key and notify every process. Return None for no valid key.

    `change` returns the new name and scope for the former ones. Concurrent changes are made one
    after the other.
    """
    changed: Sequence[Row] = ()
    while not changed:
        rows = yield SELECT_TERMS, (key_id,)
        if not rows:
            return None
        name, scope = map(str, rows[0])
        new_name, new_scope = change(name, _SCOPE.decode(scope))
        new_text = _ENCODER.encode(new_scope).decode()
        changed = yield SET_TERMS, (new_name, new_text, key_id, name, scope)
    yield notify(key_id)
    return (yield from key_by_id(key_id))


def revoke_key(key_id: str, now_ms: int) -> Transaction[StoredKey | None]:
    """Revoke a key and notify every process. Return None if there is no such key."""
    yield REVOKE, (now_ms, key_id)
    key = yield from key_by_id(key_id)
    if key is not None:
        yield notify(key_id)
    return key


def rotate_key(secret: NewSecret, now_ms: int) -> Transaction[StoredKey | None]:
    """Replace the secret of a key and notify every process. Return None for no valid key.

    All former secrets expire at `secret.former_until_ms` at the latest.
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
    """Return whether any key exists."""
    rows = yield "SELECT 1 FROM keys LIMIT 1", ()
    return bool(rows)


def _key(row: Row) -> StoredKey:
    fields = dict(zip(StoredKey.__struct_fields__, row, strict=True))
    fields["scope"] = _SCOPE.decode(str(fields["scope"]))
    fields["unlimited"] = bool(fields["unlimited"])
    return msgspec.convert(fields, StoredKey)
