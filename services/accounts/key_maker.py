"""Creation of API keys, and of their secrets."""

from __future__ import annotations

import secrets

from services.accounts.audit_trail import Viewed, json_text, record, system_origin
from services.accounts.key_messages import key_to_proto
from services.clock import Clock
from services.common.key_format import KEY_ID, SHOWN_CHARS, new_secret
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.accounts import ensure_account
from services.storage.base import Database, Transaction
from services.storage.keys import (
    KeyRequest,
    KeyScope,
    NewSecret,
    StoredKey,
    any_key,
    claim_key_request,
    insert_key,
    key_by_id,
)
from services.storage.pepper import Pepper

FIRST_ACCOUNT = "default"
"""Account of the key that the first start creates. It is unlimited."""

FIRST_SCOPE = KeyScope(administers_account=True)
"""Permissions of that key."""


class KeyMaker:
    """Creates API keys and stores them."""

    def __init__(self, database: Database, pepper: Pepper, clock: Clock) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock

    async def make(
        self, account: str, display_name: str = "", scope: KeyScope | None = None
    ) -> tuple[StoredKey, str]:
        """Create a key. Return it with its secret, which is not stored. Open a missing account."""
        key, secret = self.draft(account, display_name, scope or KeyScope())
        await self._database.write(insert_new, key)
        return key, secret

    def new_secret(self, key_id: str, overlap_s: float) -> tuple[NewSecret, str]:
        """Return a new secret of a key, which is not stored yet, in its stored form and plain.

        Former secrets stay valid for at most `overlap_s` from now.
        """
        secret = new_secret()
        new = NewSecret(
            key_id=key_id,
            digest=self._pepper.digest(secret).hex(),
            prefix=secret[:SHOWN_CHARS],
            former_until_ms=self._now_ms() + round(overlap_s * 1000),
        )
        return new, secret

    async def has_key(self) -> bool:
        """Return whether any key exists."""
        return await self._database.read(any_key)

    async def make_first(self) -> str | None:
        """Create a key for `FIRST_ACCOUNT` and return its secret, or None if any key exists."""
        key, secret = self.draft(FIRST_ACCOUNT, "first key", FIRST_SCOPE)
        return secret if await self._database.write(_insert_first, key) else None

    def draft(self, account: str, display_name: str, scope: KeyScope) -> tuple[StoredKey, str]:
        """Return a new key, which is not stored yet, and its secret."""
        secret = new_secret()
        key = StoredKey(
            id=f"{KEY_ID}{secrets.token_hex(8)}",
            account=account,
            digest=self._pepper.digest(secret).hex(),
            prefix=secret[:SHOWN_CHARS],
            display_name=display_name,
            scope=scope,
            created_ms=self._now_ms(),
        )
        return key, secret

    def _now_ms(self) -> int:
        return round(self._clock.time() * 1000)


def insert_new(key: StoredKey, *, unlimited: bool = False) -> Transaction[StoredKey]:
    """Insert a new key, and its account if it is missing."""
    yield from ensure_account(key.account, key.created_ms, unlimited=unlimited)
    yield from insert_key(key)
    return key


def insert_once(key: StoredKey, request: KeyRequest) -> Transaction[StoredKey]:
    """Insert a new key once for a request. Return the key that the request has made.

    Raise Failure ALREADY_EXISTS if another request had the same ID.
    """
    former = yield from claim_key_request(request, key.id)
    if former is None:
        yield from insert_new(key)
        return key
    found = None
    if former.fingerprint == request.fingerprint:
        found = yield from key_by_id(former.key_id)
    if found is None:
        raise Failure(
            ErrorReason.ALREADY_EXISTS,
            "The request ID was used for another key.",
            param="request_id",
        )
    return found


def _insert_first(key: StoredKey) -> Transaction[bool]:
    if (yield from any_key()):
        return False
    yield from insert_new(key, unlimited=True)
    name = f"keys/{key.id}"
    after = Viewed(name, key.account, json_text(key_to_proto(key)))
    origin = system_origin("first start", "KeyMaker.MakeFirst", key.created_ms)
    yield from record(origin, Viewed(name), after)
    return True
