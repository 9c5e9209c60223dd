"""Who calls: a bearer token in, a caller out, in microseconds.

Only keyed digests are stored and compared: an equal digest is an equal key, so that
the time of a lookup says nothing about how nearly one was guessed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.admission.revocation import Revocation, revoked
from services.clock import Chance, Clock
from services.common.key_format import well_formed
from services.common.request_headers import bearer_token
from services.common.retry_after import spread_retry_after_s
from services.errors import Failure
from services.storage.base import Database
from services.storage.keys import KeyScope, StoredKey, key_by_digest, key_by_id
from services.storage.pepper import Pepper

CACHE_MAX = 100_000
CACHE_TTL_S = 60.0
"""How long a key is believed without asking again; revocations are pushed."""

UNKNOWN_MAX = 10_000
UNKNOWN_TTL_S = 5.0
"""How long a key that is not there is remembered as such."""

ANSWER_S = 3.0
"""How long the store may take to say whose key it is."""

RETRY_SPREAD_S = 4.0
"""The spread of the Retry-After while the store cannot say whose key it is."""

RECHECK_S = 1.0
"""How long to wait for a store that cannot say whether a running call's key was revoked."""

UNSCOPED = KeyScope()

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls."""

    key_id: str
    """Safe to log."""
    account: str
    """Who pays."""
    scope: KeyScope = UNSCOPED
    """What the key may do."""
    markup_bp: int = 0
    """What the account is charged on top of prices, in hundredths of a percent."""

    def may_use(self, model: str) -> bool:
        """Whether the key may use the public model of that name."""
        return not self.scope.models or model in self.scope.models


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store said about a digest, and until when that is believed."""

    key: StoredKey | None
    caller: Caller | None
    until: float


class Keyring:
    """Knows the keys. One for each process; hears of revocations in all of them."""

    def __init__(self, database: Database, pepper: Pepper, clock: Clock, chance: Chance) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._chance = chance
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._revocations: WeakValueDictionary[str, Revocation] = WeakValueDictionary()
        self._notices = 0
        self._rechecks: set[asyncio.Task[None]] = set()
        database.subscribe(self._notice)

    async def authenticate(self, authorization: str | None) -> Caller:
        """The caller behind an `Authorization` header, `Bearer <key>`.

        Raises Failure: INVALID_API_KEY, KEY_EXPIRED, KEY_REVOKED, and AUTH_UNAVAILABLE
        where the store cannot say; a valid key is never refused for that reason.
        """
        secret = bearer_token(authorization)
        if secret is None:
            raise _invalid()
        digest = self._pepper.digest(secret)
        known = self._known.get(digest)
        if known is None or known.until <= self._clock.now():
            if not well_formed(secret) or self._is_unknown(digest):
                raise _invalid()
            known = await self._look_up(digest)
        return self._judge(known)

    def revocation(self, caller: Caller) -> Revocation:
        """Is told when the caller's key is revoked, in whichever process.

        To be asked for right after `authenticate`, and held on to while it matters.
        """
        revocation = self._revocations.get(caller.key_id)
        if revocation is None:
            revocation = self._revocations[caller.key_id] = Revocation()
        return revocation

    def _judge(self, known: _Known) -> Caller:
        key, caller = known.key, known.caller
        if key is None or caller is None:
            raise _invalid()
        if key.revoked_ms is not None:
            raise revoked()
        if self._is_over(key.scope.expire_ms) or self._is_over(key.until_ms):
            raise Failure(reasons.ERROR_REASON_KEY_EXPIRED, "This API key has expired")
        return caller

    def _is_over(self, time_ms: int | None) -> bool:
        return time_ms is not None and self._clock.time() * 1000 >= time_ms

    async def _look_up(self, digest: bytes) -> _Known:
        key = await self._ask_until_certain(digest)
        now = self._clock.now()
        if key is None:
            _remember(self._unknown, digest, now + UNKNOWN_TTL_S, UNKNOWN_MAX)
            return _Known(None, None, now)
        caller = Caller(
            key_id=key.id, account=key.account, scope=key.scope, markup_bp=key.markup_bp
        )
        known = _Known(key, caller, now + CACHE_TTL_S)
        _remember(self._known, digest, known, CACHE_MAX)
        return known

    async def _ask_until_certain(self, digest: bytes) -> StoredKey | None:
        """What was read before a notice may be older than what the notice is about."""
        while True:
            notices = self._notices
            key = await self._ask(digest)
            if notices == self._notices:
                return key

    async def _ask(self, digest: bytes) -> StoredKey | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._database.read(key_by_digest, digest.hex())
        except (Failure, TimeoutError) as failure:
            raise Failure(
                reasons.ERROR_REASON_AUTH_UNAVAILABLE,
                "The gateway cannot check the API key right now.",
                retry_after_s=spread_retry_after_s(self._chance.random, RETRY_SPREAD_S),
            ) from failure

    def _is_unknown(self, digest: bytes) -> bool:
        return self._unknown.get(digest, 0.0) > self._clock.now()

    def _notice(self, key_id: str) -> None:
        self._notices += 1
        if not key_id:
            self._known.clear()
            for watched in list(self._revocations):
                self._spawn_recheck(watched)
            return
        for digest, known in list(self._known.items()):
            if known.caller is not None and known.caller.key_id == key_id:
                del self._known[digest]
        self._spawn_recheck(key_id)

    def _spawn_recheck(self, key_id: str) -> None:
        if key_id in self._revocations:
            task = asyncio.ensure_future(self._recheck(key_id))
            self._rechecks.add(task)
            task.add_done_callback(self._rechecks.discard)

    async def _recheck(self, key_id: str) -> None:
        """Tells the calls that run on the key if it has been revoked."""
        while key_id in self._revocations:
            try:
                key = await self._database.read(key_by_id, key_id)
            except Failure:
                await asyncio.sleep(RECHECK_S)
                continue
            revocation = self._revocations.get(key_id)
            if revocation is not None and (key is None or key.revoked_ms is not None):
                revocation.happen()
            return


def _invalid() -> Failure:
    return Failure(reasons.ERROR_REASON_INVALID_API_KEY, "Invalid API key")


def _remember(cache: OrderedDict[bytes, T], digest: bytes, value: T, most: int) -> None:
    cache[digest] = value
    cache.move_to_end(digest)
    if len(cache) > most:
        cache.popitem(last=False)
