"""Versions of keys: etags (https://google.aip.dev/154), checked under a lock of the account."""

from __future__ import annotations

import hashlib

import msgspec

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.accounts import lock_account
from services.storage.base import Transaction
from services.storage.keys import StoredKey, key_by_id

_ENCODER = msgspec.json.Encoder(order="deterministic")


def etag_of(key: StoredKey) -> str:
    """Return the version of a key. Each change of the key replaces it, rotation included."""
    fields = (key.id, key.digest, key.display_name, key.scope, key.revoked_ms)
    return hashlib.blake2b(_ENCODER.encode(fields), digest_size=12).hexdigest()


def locked_key(key_id: str, etag: str = "", param: str = "etag") -> Transaction[StoredKey | None]:
    """Return a key, and keep it from changes by others until the end of the transaction.

    Raise Failure ETAG_MISMATCH if it does not have the version `etag`. Empty: any version.
    """
    key = yield from key_by_id(key_id)
    if key is None:
        return None
    yield from lock_account(key.account)
    key = yield from key_by_id(key_id)
    if key is not None:
        require_version(key, etag, param)
    return key


def require_version(key: StoredKey, etag: str, param: str = "etag") -> None:
    """Raise Failure ETAG_MISMATCH if the key does not have the version `etag`. Empty: any one."""
    if etag and etag != etag_of(key):
        message = "The key was changed after the version with this etag."
        raise Failure(ErrorReason.ETAG_MISMATCH, message, param=param)
