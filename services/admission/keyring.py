"""Authentication of callers: a bearer token in, a caller out, in microseconds.

Only keyed digests are kept and compared: in the cache those with a secret of the process, in the
store those with the pepper. An equal digest is an equal key, so that the time of a lookup says
nothing about how close a guess came.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from secrets import token_bytes
from typing import TypeVar

from services.admission.interrupt import key_revoked
from services.clock import Chance, Clock
from services.common.key_format import PREFIX, well_formed
from services.common.request_headers import bearer_token
from services.common.retry_after import spread_retry_after_s
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.base import Database
from services.storage.keys import KeyScope, StoredKey, key_by_digest, revoked_keys
from services.storage.pepper import Pepper
from services.telemetry.calls import CallRecord

CACHE_MAX = 100_000
"""The most keys in the cache."""
CACHE_TTL_S = 60.0
"""Time for which a key is used without a new lookup. Revocations arrive as notices, earlier."""

UNKNOWN_MAX = 10_000
"""The most digests of unknown keys in the cache."""
UNKNOWN_TTL_S = 5.0
"""Time for which an unknown key is refused without a new lookup."""

LOOKUP_TIMEOUT_S = 3.0
"""Timeout of a lookup in the store."""

RETRY_SPREAD_S = 4.0
"""The spread of the Retry-After while the store does not answer."""

RECHECK_S = 1.0
"""The interval of attempts to learn from the store whether a key in use was revoked."""

UNSCOPED = KeyScope()

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller."""

    key_id: str
    """ID of the key. Safe to log."""
    account: str
    """The account that pays."""
    scope: KeyScope = UNSCOPED
    """Models, limits and budget of the key."""
    markup_bp: int = 0
    """The account's markup on prices, in hundredths of a percent."""
    unlimited: bool = False
    """Whether the account's calls are admitted without regard to its balance."""

    @property
    def pays(self) -> bool:
        """Whether the key's calls are limited by money: a balance, or the key's own budget."""
        return not self.unlimited or self.scope.monthly_nano_usd is not None

    def may_use(self, model: str) -> bool:
        """Whether the key may use the public model of that name."""
        return not self.scope.models or model in self.scope.models


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """The store's answer for a digest, and how long it may be used."""

    key: StoredKey | None
    caller: Caller | None
    until: float
    lasting: Caller | None = None
    """The caller, where the key is neither revoked nor ends."""


def sent_key(authorization: str | None) -> str | None:
    """Return the key of an `Authorization` header; empty for another form, None without one."""
    return bearer_token(authorization) or "" if authorization else None


class Keyring:
    """Cache of keys. One for each process; it is notified of revocations by all processes."""

    def __init__(self, database: Database, pepper: Pepper, clock: Clock, chance: Chance) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._chance = chance
        self._digest_of = partial(blake2b, key=token_bytes(blake2b.MAX_KEY_SIZE))
        self._known: OrderedDict[bytes, _CachedKey] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self.live_calls: Mapping[int, CallRecord] = {}
        """Calls in flight, which end when their key is revoked."""
        self._notices = 0
        self._rechecks: set[asyncio.Task[None]] = set()
        database.subscribe(self._on_notice)

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller with an `Authorization` header `Bearer <key>`. See `caller`."""
        return await self.caller(sent_key(authorization))

    async def caller(self, secret: str | None) -> Caller:
        """Return the caller with a key, which is that of `sent_key`.

        Raises Failure: INVALID_API_KEY, KEY_EXPIRED, KEY_REVOKED, and AUTH_UNAVAILABLE
        where the store does not answer; a store that does not answer never makes a key invalid.
        """
        if not secret:
            raise _malformed(secret)
        digest = self._digest_of(secret.encode("utf-8", "surrogatepass")).digest()
        cached = self._known.get(digest)
        if cached is None or cached.until <= self._clock.now():
            if not well_formed(secret):
                raise _malformed(secret)
            if self._is_unknown(digest):
                raise _invalid()
            cached = await self._look_up(secret, digest)
        return cached.lasting or self._require_valid(cached)

    def _require_valid(self, cached: _CachedKey) -> Caller:
        key, caller = cached.key, cached.caller
        if key is None or caller is None:
            raise _invalid()
        if key.revoked_ms is not None:
            raise key_revoked()
        if self._is_past(key.scope.expire_ms) or self._is_past(key.until_ms):
            raise Failure(ErrorReason.KEY_EXPIRED, "This API key has expired")
        return caller

    def _is_past(self, time_ms: int | None) -> bool:
        return time_ms is not None and self._clock.time() * 1000 >= time_ms

    async def _look_up(self, secret: str, digest: bytes) -> _CachedKey:
        key = await self._read_without_race(self._pepper.digest(secret).hex())
        now = self._clock.now()
        if key is None:
            _cache(self._unknown, digest, now + UNKNOWN_TTL_S, UNKNOWN_MAX)
            return _CachedKey(None, None, now)
        caller = Caller(
            key_id=key.id,
            account=key.account,
            scope=key.scope,
            markup_bp=key.markup_bp,
            unlimited=key.unlimited,
        )
        ends = (key.revoked_ms, key.scope.expire_ms, key.until_ms)
        lasting = caller if ends == (None, None, None) else None
        cached = _CachedKey(key, caller, now + CACHE_TTL_S, lasting)
        _cache(self._known, digest, cached, CACHE_MAX)
        return cached

    async def _read_without_race(self, stored_digest: str) -> StoredKey | None:
        """Read a key, again if a notice arrives meanwhile: the first answer may be older."""
        while True:
            notices = self._notices
            key = await self._read(stored_digest)
            if notices == self._notices:
                return key

    async def _read(self, stored_digest: str) -> StoredKey | None:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                return await self._database.read(key_by_digest, stored_digest)
        except (Failure, TimeoutError) as failure:
            raise Failure(
                ErrorReason.AUTH_UNAVAILABLE,
                "The gateway cannot check the API key right now.",
                retry_after_s=spread_retry_after_s(self._chance.random, RETRY_SPREAD_S),
            ) from failure

    def _is_unknown(self, digest: bytes) -> bool:
        return self._unknown.get(digest, 0.0) > self._clock.now()

    def _on_notice(self, key_id: str) -> None:
        """Forget a key that has changed. Without an ID, notices may have been lost: forget all."""
        self._notices += 1
        key_ids = self._keys_in_use()
        if key_id:
            key_ids &= {key_id}
            for digest, cached in list(self._known.items()):
                if cached.caller is not None and cached.caller.key_id == key_id:
                    del self._known[digest]
        else:
            self._known.clear()
        if key_ids:
            task = asyncio.ensure_future(self._recheck(key_ids))
            self._rechecks.add(task)
            task.add_done_callback(self._rechecks.discard)

    async def _recheck(self, key_ids: Collection[str]) -> None:
        """End the calls in flight with those of these keys that were revoked, says the store."""
        while key_ids := self._keys_in_use().intersection(key_ids):
            try:
                revoked = await self._database.read(revoked_keys, key_ids)
            except Failure:
                await asyncio.sleep(RECHECK_S)
                continue
            for call in tuple(self.live_calls.values()):
                if call.key_id in revoked and call.interrupt is not None:
                    call.interrupt.trigger(key_revoked)
            return

    def _keys_in_use(self) -> set[str]:
        return {call.key_id for call in self.live_calls.values() if call.key_id}


def _invalid() -> Failure:
    return Failure(ErrorReason.INVALID_API_KEY, "Invalid API key")


def _malformed(secret: str | None) -> Failure:
    fault = "the call has none" if secret is None else "the value does not have the form of a key"
    how = f"Send one key in the metadata `authorization: Bearer {PREFIX}...`."
    return Failure(ErrorReason.INVALID_API_KEY, f"Invalid API key: {fault}. {how}")


def _cache(cache: OrderedDict[bytes, T], digest: bytes, value: T, most: int) -> None:
    cache[digest] = value
    cache.move_to_end(digest)
    if len(cache) > most:
        cache.popitem(last=False)
