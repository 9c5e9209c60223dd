"""Changes that the keys of an account make to its keys, as transactions.

Each one locks the account and reads the caller's key again, so that a key that was revoked or
narrowed meanwhile changes nothing, and concurrent changes are made one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from services.accounts.key_changes import KeyChange
from services.accounts.key_maker import insert_once
from services.accounts.key_versions import require_version
from services.accounts.tenant_policy import changed_scope, denied, new_scope, refuse_rotation
from services.admission.interrupt import key_revoked
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.accounts import lock_account
from services.storage.audit_entries import nth_recent_ms
from services.storage.base import Transaction
from services.storage.keys import (
    KeyRequest,
    NewSecret,
    StoredKey,
    insert_key,
    key_by_id,
    revoke_key,
    rotate_key,
    unrevoked_keys,
    update_key,
)

MINUTE_MS = 60_000
CHANGES_PER_MINUTE = 60
NOT_ADMINISTERING = "This key does not administer its account."


class OwnKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the caller's account that a request names."""

    account: str
    """Account of the caller."""
    caller_id: str
    """ID of the caller's key."""
    key_id: str = ""
    """ID in the request. It may be of another account, or of no key."""
    etag: str = ""
    """Version that the request expects. Empty: any."""
    now_ms: int
    """Time of the request."""


def create_own(
    own: OwnKey, draft: StoredKey, request: KeyRequest | None, keys_max: int
) -> Transaction[StoredKey]:
    """Create a key with no more than the caller has. Return the key that `request` made before.

    Raise Failure PERMISSION_DENIED, ALREADY_EXISTS.
    """
    caller = yield from _caller(own)
    draft = replace(draft, scope=new_scope(draft.scope, caller.scope))
    if request is None:
        yield from insert_key(draft)
        made = draft
    else:
        made = yield from insert_once(draft, request)
    if made.id == draft.id:
        yield from _limit_number(own, keys_max)
    return made


def update_own(own: OwnKey, change: KeyChange, keys_max: int) -> Transaction[StoredKey | None]:
    """Change a key. Return None if the account has no such key that is not revoked.

    A key that had expired counts as a new one. Raise Failure PERMISSION_DENIED.
    """
    caller = yield from _caller(own)
    key = yield from _named(own)
    if key is None or key.revoked_ms is not None:
        return None
    require_version(key, own.etag, "key.etag")
    name, scope = change.apply(key.display_name, key.scope)
    scope = changed_scope(scope, key.scope, caller.scope)
    if not scope.administers_account or scope.expire_ms not in {None, key.scope.expire_ms}:
        yield from _require_other_administrator(own, key)
    changed = yield from update_key(key.id, lambda *_: (name, scope))
    if not _valid([key], own.now_ms) and changed and _valid([changed], own.now_ms):
        yield from _limit_number(own, keys_max)
    return changed


def rotate_own(own: OwnKey, secret: NewSecret) -> Transaction[StoredKey | None]:
    """Replace the secret of a key. Return None if the account has no such valid key."""
    caller = yield from _caller(own)
    key = yield from _named(own)
    if key is None or key.revoked_ms is not None:
        return None
    require_version(key, own.etag)
    refuse_rotation(key, caller)
    return (yield from rotate_key(secret, own.now_ms))


def revoke_own(own: OwnKey) -> Transaction[StoredKey | None]:
    """Revoke a key. Return None if the account has no such key."""
    yield from _caller(own)
    key = yield from _named(own)
    if key is None:
        return None
    require_version(key, own.etag)
    yield from _require_other_administrator(own, key)
    return (yield from revoke_key(key.id, own.now_ms))


def _caller(own: OwnKey) -> Transaction[StoredKey]:
    """Lock the account and return the caller's key. Raise Failure if it may not administer it."""
    yield from lock_account(own.account)
    caller = yield from key_by_id(own.caller_id)
    if caller is None or caller.revoked_ms is not None:
        raise key_revoked()
    if not _valid([caller], own.now_ms):
        raise Failure(ErrorReason.KEY_EXPIRED, "This API key has expired")
    if not caller.scope.administers_account:
        raise denied(NOT_ADMINISTERING)
    yield from _limit_rate(own)
    return caller


def _limit_rate(own: OwnKey) -> Transaction[None]:
    """Raise Failure RATE_LIMIT_EXCEEDED if the account's keys made too many changes lately."""
    since_ms = own.now_ms - MINUTE_MS
    first_ms = yield from nth_recent_ms(own.account, since_ms, CHANGES_PER_MINUTE)
    if first_ms is not None:
        message = f"The keys of an account make at most {CHANGES_PER_MINUTE} changes a minute."
        wait_s = (first_ms - since_ms) / 1000
        raise Failure(ErrorReason.RATE_LIMIT_EXCEEDED, message, retry_after_s=wait_s)


def _limit_number(own: OwnKey, keys_max: int) -> Transaction[None]:
    """Raise Failure PERMISSION_DENIED if the account has more than `keys_max` valid keys."""
    valid = _valid((yield from unrevoked_keys(own.account)), own.now_ms)
    if len(valid) > keys_max:
        raise denied(f"The account has {keys_max} valid keys, as many as it may have: revoke one.")


def _named(own: OwnKey) -> Transaction[StoredKey | None]:
    key = yield from key_by_id(own.key_id)
    return key if key is not None and key.account == own.account else None


def _require_other_administrator(own: OwnKey, key: StoredKey) -> Transaction[None]:
    """Raise Failure PERMISSION_DENIED if no key but this one administers the account."""
    if not key.scope.administers_account or key.revoked_ms is not None:
        return
    valid = _valid((yield from unrevoked_keys(own.account)), own.now_ms)
    if not any(each.scope.administers_account for each in valid if each.id != key.id):
        raise denied("No other valid key administers the account.")


def _valid(keys: Sequence[StoredKey], now_ms: int) -> Sequence[StoredKey]:
    return [key for key in keys if key.scope.expire_ms is None or key.scope.expire_ms > now_ms]
